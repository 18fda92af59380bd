"""Checks of single arguments: each refuses a wrong value with the rule that it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from kspark import compression
from kspark.compression import Codec
from kspark.errors import invalid, invalid_type

MODES = ("synchronous", "asynchronous", "hogwild")


def check_mode(mode: object) -> None:
    """Refuse an unknown mode."""
    if mode not in MODES:
        raise invalid("mode", "one of " + ", ".join(f'"{m}"' for m in MODES), mode)


def check_frequency(frequency: object) -> None:
    """Refuse a frequency that is neither a known word nor a positive integer."""
    if frequency in ("epoch", "batch"):
        return
    if isinstance(frequency, bool) or not isinstance(frequency, Integral) or frequency < 1:
        raise invalid("frequency", '"epoch", "batch" or an integer >= 1', frequency)


def check_integer(name: str, value: object, least: int) -> None:
    """Refuse what is no integer, or too small."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise invalid_type(name, f"an integer >= {least}", value)
    if value < least:
        raise invalid(name, f"an integer >= {least}", value)


def check_max_staleness(value: object, mode: str) -> None:
    """Refuse what is no number of exchanges, and modes in which it means nothing."""
    if value is None:
        return
    if mode == "synchronous":
        reason = "its replicas wait for each other at every exchange"
        raise invalid("max_staleness", f'None with mode="synchronous": {reason}', value)
    if mode == "hogwild":
        reason = "its replicas wait for nobody, and those that share memory are not seen to push"
        raise invalid("max_staleness", f'None with mode="hogwild": {reason}', value)
    check_integer("max_staleness", value, 0)


def check_straggler_timeout(value: object, mode: str, frequency: object) -> None:
    """Refuse what is no number of seconds, and where no round waits for its shards."""
    if value is None:
        return
    if mode != "synchronous":
        reason = "its replicas are not merged together, and a slow one holds up no round"
        raise invalid("straggler_timeout", f'None with mode="{mode}": {reason}', value)
    if frequency != "epoch":
        reason = "a replica that misses one of an epoch's meetings cannot join the next"
        raise invalid("straggler_timeout", f"None with frequency={frequency!r}: {reason}", value)
    check_positive("straggler_timeout", value)


def check_positive(name: str, value: object) -> None:
    """Refuse what is no finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, "a number of seconds > 0", value)
    if not 0 < float(value) < float("inf"):
        raise invalid(name, "a finite number of seconds > 0", value)


def checked_port(port: Any) -> int | tuple[int, int]:
    """A port, or the first and the last of several. (JSON makes a list of a pair.)"""
    rule = "a port from 0 to 65535, or a pair (first, last) of ports"
    ports = tuple(port) if isinstance(port, tuple | list) and len(port) == 2 else (port,)
    for value in ports:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise invalid_type("port", rule, port)
        if not 0 <= int(value) <= 65535:
            raise invalid("port", rule, port)
    if len(ports) == 1:
        return int(port)
    if not 0 < ports[0] <= ports[1]:
        raise invalid("port", rule, port)
    return int(ports[0]), int(ports[1])


def checked_compression(value: Any, mode: str) -> Codec | None:
    """The codec that is meant; none in a mode that has nothing to compress."""
    codec = compression.get(value)
    if codec is not None and mode == "hogwild":
        rule = (
            'None with mode="hogwild": replicas on the host of the driver write into its memory, '
            'and nothing travels that could be compressed; mode="asynchronous" compresses'
        )
        raise invalid("compression", rule, value)
    return codec


def checked_class_weight(value: Any) -> dict[int, float] | None:
    """Class weights with plain keys and values."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise invalid_type("class_weight", "a non-empty mapping of class index to weight", value)
    for key, weight in value.items():
        if isinstance(key, bool) or not isinstance(key, Integral) or key < 0:
            raise invalid("class_weight", "keyed by class indices >= 0", value)
        if not isinstance(weight, Real) or not 0 <= float(weight) < float("inf"):
            raise invalid("class_weight", "a mapping to finite weights >= 0", value)
    return {int(key): float(weight) for key, weight in value.items()}


def checked_validation_freq(value: Any) -> int | tuple[int, ...]:
    """An interval, or the epochs (counted from 1) that are validated."""
    if isinstance(value, list | tuple | set | range):
        for item in value:
            check_integer("validation_freq", item, 1)
        return tuple(sorted(int(v) for v in value))
    check_integer("validation_freq", value, 1)
    return int(value)


def check_fraction(name: str, value: object) -> None:
    """Refuse what is no number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, "a number >= 0 and < 1", value)
    if not 0 <= float(value) < 1:
        raise invalid(name, "a number >= 0 and < 1", value)
