"""The names of layers in the errors of a replica that was built for an earlier model.

A fit may take over the replica of an earlier model of the same architecture, whose layers Keras has
numbered differently. What such a replica has compiled keeps the earlier names. Errors that a user
sees must have those of the user's model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kspark.errors import Failure
from kspark.replica.auto_names import translated

_current: dict[str, str] = {}
"""The names in the model of the user by the names in this process' replica."""


def set_names(built: Iterable[str], wanted: Iterable[str]) -> None:
    """Note the names with which a replica was built, and those of the model that it trains."""
    _current.clear()
    _current.update(zip(built, wanted, strict=True))


def with_own_names(failure: Failure) -> Failure:
    """Return a failure whose texts name the layers of the user's model."""
    message = translated(failure.message, _current)
    return replace(failure, message=message, traceback=translated(failure.traceback, _current))
