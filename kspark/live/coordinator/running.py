"""How far the shards have come within an epoch, for the display and the callbacks of the driver."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np

from kspark.live.coordinator.marks import Marks, Moment
from kspark.live.wire.reports import ProgressReport


class Running:
    """What the shards have reported. Several threads may use it.

    Args:
        every: Integer, number of batches of all shards together between two marks. Defaults to
            `None`: there are no marks.
    """

    def __init__(self, every: int | None = None) -> None:
        self._last: dict[int, tuple[ProgressReport, list[np.ndarray]]] = {}
        self._marks = None if every is None else Marks(every)
        self._lock = Lock()

    def take(self, shard: int, report: ProgressReport, arrays: Sequence[np.ndarray]) -> None:
        """Keep a report instead of the shard's last one, also if an epoch has started again."""
        with self._lock:
            self._last[shard] = report, list(arrays)
            if self._marks is not None:
                self._marks.take(shard, report, list(arrays))

    def at(self, epoch: int) -> Moment:
        """Return what is known of an epoch. A shard that is ahead of it has trained all of it."""
        done, metrics = 0, []
        with self._lock:
            last = sorted(self._last.items())
        for _, (report, arrays) in last:
            if report.epoch > epoch:
                done += report.total
            elif report.epoch == epoch:
                done += min(report.num_examples, report.total or report.num_examples)
                metrics += [arrays] if arrays else []
        return Moment(max(done, 0), metrics)

    def next_mark(self, epoch: int) -> Moment | None:
        """Remove and return the next mark of an epoch, see `Marks`.

        Marks of earlier epochs are dropped.

        Returns:
            `Moment`; `None` if the shards have not reached another mark.
        """
        with self._lock:
            return None if self._marks is None else self._marks.next(epoch)
