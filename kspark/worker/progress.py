"""Report how far a replica has come within an epoch, a few times per second.

A replica trains a window in one compiled loop. To report within a window, the loop is called for
one piece of the window after the other. The batches and their order stay the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.live.wire.reports import ProgressReport
from kspark.worker.tasks import widened

if TYPE_CHECKING:
    from kspark.replica import Replica

Send = Callable[[dict[str, Any], list[np.ndarray]], object]
"""Function of a report as JSON data, and of the arrays that are sent beside it."""

REPORT_SECONDS = 0.5
"""Seconds between two reports, and the longest time that a piece should take."""

MAX_METRIC_BYTES = 1 << 16
"""Size of a metric state, in bytes, up to which it is sent with each report."""


class Reporter:
    """Divides an epoch's windows into pieces, and reports after some of them.

    Args:
        send: `Send`. Defaults to `None`: windows are not divided, and nothing is reported.
    """

    def __init__(self, send: Send | None = None) -> None:
        self._send = send
        self._piece = 1
        self._epoch = self._total = self._done = 0
        self._reported = 0.0
        self._began = False
        self._sends_metrics = True

    def begin(self, epoch: int, total: int, done: int = 0) -> None:
        """Begin an epoch.

        Args:
            epoch: Integer.
            total: Integer, number of examples that the shard trains in the epoch.
            done: Integer, number of these that were trained before. Defaults to `0`.
        """
        self._epoch, self._total, self._done = epoch, total, done
        self._reported, self._began = time.perf_counter(), False

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Divide batches `[start, stop)` into pieces that take about `REPORT_SECONDS` at most.

        The length of a piece follows from the time that the caller took for the pieces before,
        also in earlier epochs.

        Yields:
            Tuples of a piece's first batch and the batch after its last.
        """
        if self._send is None:
            if start < stop:
                yield start, stop
            return
        while start < stop:
            end, began = min(start + self._piece, stop), time.perf_counter()
            yield start, end
            self._adjust(end - start, time.perf_counter() - began)
            start = end

    def _adjust(self, batches: int, seconds: float) -> None:
        """Adjust the length of pieces. The first one contains the tracing of the loop."""
        if batches == self._piece and seconds < REPORT_SECONDS / 2:
            self._piece *= 2
        elif seconds > REPORT_SECONDS:
            self._piece = max(self._piece // 2, 1)

    def trained(self, replica: Replica, num_examples: int) -> None:
        """Count trained examples, and report if the last report is `REPORT_SECONDS` old.

        An epoch that takes no longer than that is not reported at all.
        """
        self._done += num_examples
        if self._send is None:
            return
        now = time.perf_counter()
        over = self._began and self._done >= self._total
        if now - self._reported >= REPORT_SECONDS or over:
            self._reported, self._began = now, True
            report = ProgressReport(self._epoch, self._done, self._total)
            self._send(report.to_json(), self._metric_state(replica))

    def _metric_state(self, replica: Replica) -> list[np.ndarray]:
        if not self._sends_metrics:
            return []
        state = [widened(array) for array in replica.metric_state()]
        self._sends_metrics = sum(array.nbytes for array in state) <= MAX_METRIC_BYTES
        return state if self._sends_metrics else []
