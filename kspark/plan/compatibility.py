"""Refuse settings that exclude each other."""

from __future__ import annotations

from typing import Any

from kspark.errors import invalid
from kspark.plan.checks import check_integer
from kspark.plan.settings import PlanSettings


def check_compatible(settings: PlanSettings) -> None:
    """Refuse settings that have no effect with the mode or the frequency.

    Raises:
        ValueError: If one of them is set.
    """
    check_max_staleness(settings)
    check_straggler_timeout(settings)
    check_road(settings)
    if settings.compression is not None and settings.mode == "hogwild":
        rule = (
            'None with mode="hogwild", where replicas on the host of the driver write to shared '
            'memory and send no deltas; use mode="asynchronous" to compress deltas'
        )
        raise invalid("compression", rule, settings.compression)


def check_max_staleness(settings: PlanSettings) -> None:
    """Refuse `max_staleness` in all modes but the asynchronous one.

    Raises:
        ValueError: If it is set in another mode.
    """
    if settings.max_staleness is None or settings.mode == "asynchronous":
        return
    reasons = {
        "synchronous": "where replicas wait for each other at every exchange",
        "hogwild": "where the driver does not see pushes to shared memory",
    }
    rule = f'None with mode="{settings.mode}", {reasons[settings.mode]}'
    raise invalid("max_staleness", rule, settings.max_staleness)


def check_straggler_timeout(settings: PlanSettings) -> None:
    """Refuse `straggler_timeout` in all modes and frequencies but the default ones.

    Raises:
        ValueError: If it is set with another mode or frequency.
    """
    value = settings.straggler_timeout
    if value is None:
        return
    if settings.mode != "synchronous":
        rule = f'None with mode="{settings.mode}", where replicas do not wait for a slow one'
        raise invalid("straggler_timeout", rule, value)
    if settings.frequency != "epoch":
        reason = "where a replica that misses an exchange cannot take part in the next one"
        rule = f"None with frequency={settings.frequency!r}, {reason}"
        raise invalid("straggler_timeout", rule, value)


def check_road(settings: PlanSettings) -> None:
    """Refuse a road on which the mode, the frequency or a timeout for stragglers is not possible.

    Raises:
        ValueError: If it is set.
    """
    mode, frequency = settings.mode, settings.frequency
    if settings.road == "rounds" and (mode, frequency) != ("synchronous", "epoch"):
        reason = "where replicas exchange within an epoch"
        rule = f'"auto" or "live" with mode="{mode}" and frequency={frequency!r}, {reason}'
        raise invalid("road", rule, settings.road)
    if settings.road == "live" and settings.straggler_timeout is not None:
        rule = '"auto" or "rounds" with a `straggler_timeout`, which needs a Spark job per shard'
        raise invalid("road", rule, settings.road)


def check_callbacks_every(value: Any, settings: PlanSettings) -> int | None:
    """Check `callbacks_every`, and that workers can report to the driver within an epoch.

    Raises:
        ValueError: If it is out of range, or set with jobs that report when they end.
        TypeError: If it is no integer.
    """
    if value is None:
        return None
    rule = "where workers are not connected to the driver within an epoch"
    if settings.road == "rounds":
        raise invalid("callbacks_every", f'None with road="rounds", {rule}', value)
    if settings.straggler_timeout is not None:
        raise invalid("callbacks_every", f"None with a `straggler_timeout`, {rule}", value)
    return check_integer("callbacks_every", value, 1)
