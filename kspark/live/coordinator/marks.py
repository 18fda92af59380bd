"""Moments within an epoch at which all shards together have trained some more batches."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from kspark.live.wire.reports import ProgressReport

MAX_WAITING = 64
"""Marks of an epoch that wait for the driver. A further one replaces the last of them."""


@dataclass(frozen=True)
class Moment:
    """What all shards together have trained of an epoch.

    Attributes:
        num_examples: Integer. Defaults to `0`.
        metrics: List of metric states, one per shard that has sent one, in the order of the
            shards. Defaults to `[]`.
        batches: Integer, the batches that all shards together had trained at a mark; 0 if this is
            no mark. Defaults to `0`.
    """

    num_examples: int = 0
    metrics: list[list[np.ndarray]] = field(default_factory=list)
    batches: int = 0


@dataclass
class EpochMarks:
    """The marks of one epoch.

    Attributes:
        last: Dictionary from shard to its last report of the epoch, and its metric state.
        batches: Integer, batches of all shards together. Defaults to `0`.
        passed: Integer, number of the last mark that the shards have reached. Defaults to `0`.
        waiting: Deque of `Moment`, the marks that the driver has not taken.
    """

    last: dict[int, tuple[ProgressReport, list[np.ndarray]]] = field(default_factory=dict)
    batches: int = 0
    passed: int = 0
    waiting: deque[Moment] = field(default_factory=deque)

    def moment(self) -> Moment:
        """Return what the shards have trained now."""
        known = [self.last[shard] for shard in sorted(self.last)]
        metrics = [arrays for _, arrays in known if arrays]
        return Moment(sum(report.num_examples for report, _ in known), metrics, self.batches)


class Marks:
    """Notes what the shards have trained at every `every` batches of all of them together.

    Each mark of an epoch is noted once, also if the epoch starts again. A replica that trains
    alone may be epochs ahead of the driver, so each epoch has its own reports.

    Args:
        every: Integer >= 1.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._epochs: dict[int, EpochMarks] = {}

    def take(self, shard: int, report: ProgressReport, arrays: list[np.ndarray]) -> None:
        """Take a report, instead of the last one of the shard in this epoch."""
        marks = self._epochs.setdefault(report.epoch, EpochMarks())
        before = marks.last[shard][0].batches if shard in marks.last else 0
        marks.last[shard] = report, arrays
        marks.batches += report.batches - before
        if marks.batches // self._every <= marks.passed:
            return
        marks.passed = marks.batches // self._every
        if len(marks.waiting) >= MAX_WAITING:
            marks.waiting.pop()
        marks.waiting.append(marks.moment())

    def next(self, epoch: int) -> Moment | None:
        """Remove and return the first waiting mark of an epoch, and forget earlier epochs."""
        self._epochs = {e: marks for e, marks in self._epochs.items() if e >= epoch}
        marks = self._epochs.get(epoch)
        return marks.waiting.popleft() if marks is not None and marks.waiting else None
