"""Checks of single arguments.

A check takes the name and the value of an argument. It returns the value as plain data, or raises
`TypeError` for a value of a wrong type and `ValueError` for a value out of range. The message has
the requirement and the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from kspark import compression, optimizers
from kspark.compression import Codec
from kspark.errors import invalid, invalid_type
from kspark.optimizers import ServerOptimizer

Check = Callable[[str, Any], Any]


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Check that a value is one of some strings."""
    if value not in choices:
        raise invalid(name, "one of " + ", ".join(f'"{choice}"' for choice in choices), value)
    return choices[choices.index(value)]


def check_boolean(name: str, value: Any) -> bool:
    """Check that a value is `True` or `False`."""
    if not isinstance(value, bool | np.bool_):
        raise invalid_type(name, "True or False", value)
    return bool(value)


def check_integer(name: str, value: Any, least: int) -> int:
    """Check that a value is an integer and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise invalid_type(name, f"an integer >= {least}", value)
    if value < least:
        raise invalid(name, f"an integer >= {least}", value)
    return int(value)


def check_steps(name: str, value: Any) -> int | None:
    """Check that a value is `None` or a number of steps, an integer >= 1."""
    return None if value is None else check_integer(name, value, 1)


def check_seconds(name: str, value: Any) -> float:
    """Check that a value is a finite number of seconds > 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, "a number of seconds > 0", value)
    if not 0 < float(value) < float("inf"):
        raise invalid(name, "a finite number of seconds > 0", value)
    return float(value)


def check_fraction(name: str, value: Any) -> float:
    """Check that a value is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, "a number >= 0 and < 1", value)
    if not 0 <= float(value) < 1:
        raise invalid(name, "a number >= 0 and < 1", value)
    return float(value)


def check_number_of_epochs(name: str, value: Any) -> float:
    """Check that a value is a finite number >= 0; fractions of an epoch are allowed."""
    rule = "a finite number of epochs >= 0"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, rule, value)
    if not 0 <= float(value) < float("inf"):
        raise invalid(name, rule, value)
    return float(value)


def check_frequency(name: str, value: Any) -> str | int:
    """Check that a value is `"fit"`, `"epoch"`, `"batch"` or a positive number of batches."""
    if value in ("fit", "epoch", "batch"):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise invalid(name, '"fit", "epoch", "batch" or an integer >= 1', value)
    return int(value)


def check_reshuffle(name: str, value: Any) -> str | int:
    """Check that a value is `"epoch"` or a positive number of epochs."""
    if isinstance(value, str) and value == "epoch":
        return value
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise invalid(name, 'None, "epoch" or an integer >= 1, a number of epochs', value)
    return int(value)


def check_port(name: str, value: Any) -> int | tuple[int, int]:
    """Check that a value is a port, or a pair of the first and the last port to try.

    A pair may be a list, because JSON has no tuples.
    """
    rule = "a port from 0 to 65535, or a pair (first, last) of ports"
    ports = tuple(value) if isinstance(value, tuple | list) and len(value) == 2 else (value,)
    for port in ports:
        if isinstance(port, bool) or not isinstance(port, Integral):
            raise invalid_type(name, rule, value)
        if not 0 <= int(port) <= 65535:
            raise invalid(name, rule, value)
    if len(ports) == 1:
        return int(value)
    if not 0 < ports[0] <= ports[1]:
        raise invalid(name, rule, value)
    return int(ports[0]), int(ports[1])


def check_compression(name: str, value: Any) -> Codec | None:
    """Check that a value is a codec, its name or its configuration, and return the codec."""
    return compression.get(value)


def check_server_optimizer(name: str, value: Any) -> ServerOptimizer:
    """Check that a value is a server optimizer, its name or its configuration; return the rule."""
    return optimizers.get(value)


def check_class_weight(name: str, value: Any) -> dict[int, float] | None:
    """Check that a value is `None` or maps class indices to weights."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise invalid_type(name, "a non-empty mapping of class index to weight", value)
    for key, weight in value.items():
        if isinstance(key, bool) or not isinstance(key, Integral) or key < 0:
            raise invalid(name, "keyed by class indices >= 0", value)
        if not isinstance(weight, Real) or not 0 <= float(weight) < float("inf"):
            raise invalid(name, "a mapping to finite weights >= 0", value)
    return {int(key): float(weight) for key, weight in value.items()}


def check_validation_freq(name: str, value: Any) -> int | tuple[int, ...]:
    """Check that a value is a number of epochs, or a collection of epochs counted from 1."""
    if isinstance(value, list | tuple | set | range):
        return tuple(sorted(check_integer(name, item, 1) for item in value))
    return check_integer(name, value, 1)
