"""Settings that exclude each other."""

from __future__ import annotations

from kspark.errors import invalid
from kspark.plan.settings import PlanSettings


def check_compatible(settings: PlanSettings) -> None:
    """Refuse a setting that has no meaning in the mode or at the frequency.

    Raises:
        ValueError: If there is one.
    """
    check_max_staleness(settings)
    check_straggler_timeout(settings)
    if settings.compression is not None and settings.mode == "hogwild":
        rule = (
            'None with mode="hogwild": replicas on the host of the driver write into its memory, '
            'and nothing travels that could be compressed; mode="asynchronous" compresses'
        )
        raise invalid("compression", rule, settings.compression)


def check_max_staleness(settings: PlanSettings) -> None:
    """Refuse `max_staleness` in modes that have no staleness to bound.

    Raises:
        ValueError: If it is set there.
    """
    if settings.max_staleness is None or settings.mode == "asynchronous":
        return
    reasons = {
        "synchronous": "its replicas wait for each other at every exchange",
        "hogwild": "its replicas wait for nobody, and pushes through shared memory are not seen",
    }
    rule = f'None with mode="{settings.mode}": {reasons[settings.mode]}'
    raise invalid("max_staleness", rule, settings.max_staleness)


def check_straggler_timeout(settings: PlanSettings) -> None:
    """Refuse `straggler_timeout` where no round waits for its shards.

    Raises:
        ValueError: If it is set there.
    """
    value = settings.straggler_timeout
    if value is None:
        return
    if settings.mode != "synchronous":
        reason = "its replicas are not merged together, and a slow one holds up no round"
        raise invalid("straggler_timeout", f'None with mode="{settings.mode}": {reason}', value)
    if settings.frequency != "epoch":
        reason = "a replica that misses one of an epoch's meetings cannot join the next"
        rule = f"None with frequency={settings.frequency!r}: {reason}"
        raise invalid("straggler_timeout", rule, value)
