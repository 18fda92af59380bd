"""Errors of the driver as messages to replicas: class name and text, nothing executable."""

from __future__ import annotations

from typing import Any

from kspark import errors

_MAX_REASON = 4000
_CLASSES: dict[str, type[errors.KSparkError]] = {
    cls.__name__: cls
    for cls in (
        errors.KSparkError,
        errors.ClusterError,
        errors.NotEnoughSlotsError,
        errors.EnvironmentMismatchError,
        errors.AggregationError,
        errors.IncompatibleDeltaError,
        errors.ProtocolError,
        errors.ConnectionLostError,
        errors.FitEndedError,
    )
}


def describe(error: errors.KSparkError) -> dict[str, str]:
    """Return the fields of a `REFUSED` message for an error."""
    return {"error": type(error).__name__, "reason": str(error)[:_MAX_REASON]}


def restore(meta: dict[str, Any], where: str) -> errors.KSparkError:
    """Return the error that a `REFUSED` message describes.

    Args:
        meta: Dictionary, the fields of the message.
        where: String, the address of the aggregator.

    Returns:
        An error of the named class if that is one of `kspark.errors` that takes only a text,
        else a `KSparkError`.
    """
    cls = _CLASSES.get(meta["error"], errors.KSparkError)
    return cls(f"The aggregator at {where} refused: {meta['reason']}")
