"""What the main thread of this worker process is doing, for the thread that watches it.

A process trains one shard at a time, so there is one activity per process. `kspark.cluster.watch`
says what follows from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

TRAINING = "training"
"""One call of the training loop. `step_timeout` limits it."""

FILES = "files"
"""Reading or writing the files of a shard. They must answer within `timeout`."""

WAITING = "waiting"
"""Waiting for the driver or for other workers, which the driver limits."""

OTHER = "other"
"""Anything else, such as building the model, a user's function or an evaluation."""


@dataclass(frozen=True)
class Activity:
    """What the main thread is doing.

    Attributes:
        kind: String, one of the constants of this module.
        since: Float, when it began, in seconds of `time.monotonic`.
    """

    kind: str
    since: float


_current = Activity(OTHER, time.monotonic())


def current() -> Activity:
    """Return the activity of this moment."""
    return _current


def begin(kind: str) -> None:
    """Note that an activity begins."""
    global _current
    _current = Activity(kind, time.monotonic())


@contextmanager
def doing(kind: str) -> Iterator[None]:
    """Note an activity inside the block. After it, the activity from before begins anew."""
    before = _current.kind
    begin(kind)
    try:
        yield
    finally:
        begin(before)


def reading(items: Iterable[T]) -> Iterator[T]:
    """Yield items whose making reads files."""
    iterator = iter(items)
    while True:
        with doing(FILES):
            item = next(iterator, iterator)
        if item is iterator:
            return
        yield item  # type: ignore[misc]  # The iterator itself marks its end.
