"""Report how far a replica has come within an epoch, and run callbacks beside it.

A replica trains a window in one compiled loop. To do something within a window, the loop is called
for one piece of the window after the other. The batches and their order stay the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.cluster.activity import OTHER, TRAINING, begin
from kspark.live.wire.reports import ProgressReport
from kspark.plan import known
from kspark.replica.callbacks import ReplicaCallbacks
from kspark.worker.tasks import FitTask, widened

if TYPE_CHECKING:
    from kspark.replica import Replica

Send = Callable[[dict[str, Any], list[np.ndarray]], object]
"""Function of a report as JSON data, and of the arrays that are sent beside it."""

REPORT_SECONDS = 0.5
"""Seconds between two reports, and the longest time that a piece should take."""

MAX_METRIC_BYTES = 1 << 16
"""Size of a metric state, in bytes, up to which it is sent with each report for the display."""


class Reporter:
    """Divides an epoch's windows into pieces, and reports and runs callbacks after some of them.

    Args:
        send: `Send`. Defaults to `None`: nothing is reported.
        every: Integer, number of batches between two reports. Defaults to `None`: reports follow
            the clock.
        callbacks: `ReplicaCallbacks`. Defaults to `None`, none.
        short: Boolean, whether pieces are short although nothing is reported, so that the time of
            a step is known. Defaults to `False`.

    Attributes:
        total: Integer, examples of the epoch, see `begin`.
    """

    def __init__(
        self,
        send: Send | None = None,
        every: int | None = None,
        callbacks: ReplicaCallbacks | None = None,
        short: bool = False,
    ) -> None:
        self.callbacks = callbacks or ReplicaCallbacks()
        self._send = send
        self._short = short
        self._every = every
        self._piece = 1
        self._epoch = self.total = self._done = 0
        self._batches = self._in_piece = 0
        self._reported = 0.0
        self._began = False
        self._sends_metrics = True

    @classmethod
    def of(cls, fit: FitTask, shard: int, send: Send | None = None) -> Reporter:
        """Make the reporter of a shard.

        Args:
            fit: `FitTask`.
            shard: Integer.
            send: `Send`, if the task is connected to the driver. Defaults to `None`.
        """
        every = fit.batches_per_report
        wanted = fit.reports or every is not None
        short = fit.plan.step_timeout is not None
        return cls(send if wanted else None, every, callbacks_of(fit, shard), short)

    def begin(self, epoch: int, total: int, done: int = 0, batches: int = 0) -> None:
        """Begin an epoch.

        Args:
            epoch: Integer.
            total: Integer, number of examples that the shard trains in the epoch; 0 as long as
                it is not known.
            done: Integer, number of these that were trained before. Defaults to `0`.
            batches: Integer, number of batches of these. Defaults to `0`.
        """
        self._epoch, self.total, self._done, self._batches = epoch, total, done, batches
        self._reported, self._began = time.perf_counter(), False
        self.callbacks.begin_epoch(epoch)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Divide batches `[start, stop)` into pieces. Call `trained` after each of them.

        A piece ends where a report by batches or a hook of callbacks is due. If reports follow the
        clock, a piece takes about `REPORT_SECONDS` at most: its length follows from the time that
        the caller took for the pieces before, also in earlier epochs.

        Yields:
            Tuples of a piece's first batch and the batch after its last.
        """
        while start < stop:
            end, began = min(start + self._length(stop - start), stop), time.perf_counter()
            self._in_piece = end - start
            self.callbacks.begin_batches(self._batches)
            begin(TRAINING)
            yield start, end
            begin(OTHER)
            self._adjust(end - start, time.perf_counter() - began)
            start = end

    def _length(self, left: int) -> int:
        """Return the number of batches of the next piece, of at most `left`."""
        lengths = [left]
        if self.callbacks.batches:
            lengths.append(self.callbacks.batches - self._batches % self.callbacks.batches)
        if self._send is not None and self._every is not None:
            lengths.append(self._every - self._batches % self._every)
        if self._short or (self._send is not None and self._every is None):
            lengths.append(self._piece)
        return min(lengths)

    def _adjust(self, batches: int, seconds: float) -> None:
        """Adjust the length of pieces. The first one contains the tracing of the loop."""
        if batches == self._piece and seconds < REPORT_SECONDS / 2:
            self._piece *= 2
        elif seconds > REPORT_SECONDS:
            self._piece = max(self._piece // 2, 1)

    def trained(self, replica: Replica, num_examples: int) -> None:
        """Count the examples of a piece, run the hooks of callbacks, and report if that is due.

        By the clock, a report is due if the last one is `REPORT_SECONDS` old. An epoch that takes
        no longer than that is not reported at all.
        """
        self._done, self._batches = self._done + num_examples, self._batches + self._in_piece
        self.callbacks.end_batches(self._batches - 1)
        if self._send is None:
            return
        now, over = time.perf_counter(), 0 < self.total <= self._done
        if self._every is not None:
            due = over or self._batches % self._every == 0
        else:
            due = now - self._reported >= REPORT_SECONDS or (self._began and over)
        if due:
            self._reported, self._began = now, True
            report = ProgressReport(self._epoch, self._done, self.total, self._batches)
            self._send(report.to_json(), self._metric_state(replica))

    def _metric_state(self, replica: Replica) -> list[np.ndarray]:
        if not self._sends_metrics:
            return []
        state = [widened(array) for array in replica.metric_state()]
        small = sum(array.nbytes for array in state) <= MAX_METRIC_BYTES
        self._sends_metrics = small or self._every is not None
        return state if self._sends_metrics else []


def callbacks_of(fit: FitTask, shard: int) -> ReplicaCallbacks:
    """Return the callbacks that run beside the replica of a shard."""
    if fit.plan.worker_callbacks is None:
        return ReplicaCallbacks()
    params = {
        "verbose": 0,
        "epochs": fit.plan.epochs,
        "steps": known(fit.steps(shard).batches) or None,
        "worker": fit.workers.index(shard),
        "num_workers": len(fit.workers),
    }
    return ReplicaCallbacks(fit.plan.worker_callbacks, params, not fit.plan.merges_gradients)
