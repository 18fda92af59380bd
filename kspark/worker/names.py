"""The names of layers in the errors of a replica that was built for an earlier model.

A fit may take over the replica of an earlier model of the same architecture, whose layers Keras has
numbered differently. What such a replica has compiled keeps the earlier names. Errors that a user
sees must have those of the user's model.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import replace

from kspark.errors import Failure
from kspark.replica.auto_names import translated

OF_KERAS = ("keras", "tensorflow", "jax", "jaxlib", "torch", "kspark.replica.backends")
"""Where errors are raised that may have names of layers. Others name files, columns and rows."""

_current: dict[str, str] = {}
"""The names in the model of the user by the names in this process' replica."""


def set_names(built: Iterable[str], wanted: Iterable[str]) -> None:
    """Note the names with which a replica was built, and those of the model that it trains."""
    _current.clear()
    _current.update(zip(built, wanted, strict=True))


def with_own_names(failure: Failure, error: BaseException) -> Failure:
    """Return a failure whose texts name the layers of the user's model.

    Args:
        failure: `Failure`.
        error: The exception that it describes.
    """
    if failure.source or not is_of_keras(error):
        return failure
    message = translated(failure.message, _current)
    return replace(failure, message=message, traceback=translated(failure.traceback, _current))


def is_of_keras(error: BaseException) -> bool:
    """Whether an exception was raised by code of Keras or its backend."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = str(frames[-1].f_globals.get("__name__")) if frames else ""
    return any(f"{module}.".startswith(f"{name}.") for name in OF_KERAS)
