"""Hand orders to the tasks of a long job, and take their results.

`Dispatcher` is what the tasks and the thread that runs `fit` share on the driver. It has a lock,
but no socket: a server of `kspark.live.transport` brings it the requests of the tasks.

An order ends when every task has carried it out. Between two orders the tasks hold their slots. So
that nobody waits for these slots for ever, the tasks end by themselves if there is no new order for
some time: a callback may run Spark jobs of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from kspark.errors import AggregationError, Failure
from kspark.live.coordinator.gate import Gate
from kspark.live.coordinator.running import Running
from kspark.live.wire import Instructions, Order, Start, Welcome
from kspark.live.wire.reports import (
    FailureReport,
    MissingFilesReport,
    ObstacleReport,
    OrderRequest,
    ProgressReport,
    ResultReport,
    read_report,
)
from kspark.rounds.results import result_of
from kspark.worker.tasks import ShardResult

IDLE_SECONDS = 2.0
"""Seconds without a new order after which the tasks end."""

ANSWER_SECONDS = 5.0
"""Seconds after which a task that asks for an order is told to ask again, unless the timeout of its
connection is shorter."""

STOP, WAIT = Order(0, "stop"), Order(0, "wait")


class Dispatcher:
    """The orders and results of one long job. It is the `Handler` of the job's server.

    Args:
        shards: Iterable of integers, the shards that have a task in the job.
        timeout: Float, seconds in which a request must be answered.
        idle_seconds: Float, seconds without a new order after which the tasks end. Defaults to
            `IDLE_SECONDS`.
        marks: Integer, see `Running`. Defaults to `None`.

    Attributes:
        shards: Set of integers, as given.
        running: `Running`, how far the tasks have come within an epoch.
        idled: Boolean, whether the tasks ended because there was no new order.
        silent: Set of the shards whose hosts do not answer.
        lacks_state: Boolean, whether the obstacle is that a task lacks the state of its shard,
            which the driver has kept.
    """

    def __init__(
        self,
        shards: Iterable[int],
        timeout: float,
        idle_seconds: float = IDLE_SECONDS,
        *,
        marks: int | None = None,
    ) -> None:
        self.shards = frozenset(shards)
        self.idled = self.lacks_state = False
        self.silent: set[int] = set()
        self._answer_seconds = min(ANSWER_SECONDS, timeout)
        self._idle_seconds = idle_seconds
        self._gate = Gate()
        self._started: set[int] = set()
        self._done: dict[int, int] = {}
        self._stopped: set[int] = set()
        self._missing: set[int] = set()
        self._order = WAIT
        self._weights = np.empty(0, np.float32)
        self._results: list[ShardResult | Failure] = []
        self._ready_since = time.monotonic()
        self._obstacle: str | None = None
        self._ending: str | None = None
        self.running = Running(marks)

    # -- called by the thread that runs `fit` ---------------------------------------------

    def post(self, order: Order, weights: np.ndarray) -> bool:
        """Give all tasks an order.

        Args:
            order: `Order`. Its number is replaced by the next one.
            weights: Vector, the weights to begin from. It must not change until the order ends.

        Returns:
            Boolean, `False` if the tasks are ending and take no orders any more.
        """
        with self._gate.changed:
            if self.ending is not None:
                return False
            self._order = replace(order, number=self._order.number + 1)
            self._weights, self._results = weights, []
            self._gate.changed.notify_all()
        return True

    def wait(self, seconds: float) -> list[ShardResult | Failure] | None:
        """Wait at most `seconds` until all tasks have carried out the order.

        Returns:
            List of the results, sorted by shard. `None` if the order has not ended.
        """
        with self._gate.changed:
            self._gate.changed.wait_for(lambda: self._complete or self._obstacle, seconds)
            if not self._complete:
                return None
            results, self._results = self._results, []
            return sorted(results, key=lambda r: r.shard)

    @property
    def num_started(self) -> int:
        """Number of tasks that have connected."""
        with self._gate.changed:
            return len(self._started)

    @property
    def obstacle(self) -> str | None:
        """Why the order cannot end, as a sentence. `None` if it can."""
        with self._gate.changed:
            return self._obstacle

    @property
    def ending(self) -> str | None:
        """Why the tasks take no further orders, as a sentence. `None` if they do."""
        with self._gate.changed:
            return self._obstacle or self._ending

    @property
    def idle(self) -> bool:
        """Whether all tasks have carried out the last order."""
        with self._gate.changed:
            return self._complete and self._obstacle is None

    def waiting_for_tasks(self) -> int:
        """Return how many tasks have not started, if others have waited for them for long."""
        with self._gate.changed:
            missing = len(self.shards - self._started)
            waits = self._order.number in self._done.values()
            long = time.monotonic() - self._ready_since > self._idle_seconds
            return missing if waits and long else 0

    def end(self, reason: str) -> None:
        """Let every task end when it has carried out the current order.

        Args:
            reason: String, a sentence.
        """
        with self._gate.changed:
            self._ending = self._ending or reason
            self._gate.changed.notify_all()

    # -- called by the threads of the server, see `Handler` ----------------------------------

    def hello(self, shard: int, attempt: int) -> Welcome:
        """Admit the task of a shard.

        A second task of a shard is an obstacle. Spark starts one if it believes that the first one
        is lost, and the first one may have sent results.

        Raises:
            FitEndedError: If the job is over.
            AggregationError: If the shard is unknown, or has a task.
        """
        with self._gate.changed:
            self._gate.check_open()
            if shard not in self.shards:
                raise AggregationError(f"Shard {shard} is not part of this job.")
            if shard in self._started:
                self._stumble(f"Spark has started a second task of shard {shard}.")
                raise AggregationError(f"Shard {shard} has a task already.")
            self._started.add(shard)
        return Welcome(steps=0, leader=False, version=0, start=Start(epoch=0))

    def pull(self, shard: int, attempt: int, out: np.ndarray) -> tuple[int, Instructions]:
        """Write the weights of the current order into `out`."""
        with self._gate.changed:
            self._gate.check_open()
            np.copyto(out, self._weights)
            return self._order.number, Instructions()

    def push(self, *request: Any) -> Any:
        """Refuse a push: rounds have none.

        Raises:
            AggregationError: Always.
        """
        raise AggregationError("The tasks of rounds send results, and no pushes.")

    reduce = push

    def report(
        self, shard: int, attempt: int, meta: dict[str, Any], arrays: list[np.ndarray]
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Take a result, or answer a request for an order. The request may wait for one.

        Raises:
            FitEndedError: If the job is over.
            AggregationError: If the kind of the report is not expected.
            ProtocolError: If it is malformed.
        """
        report = read_report(meta)
        with self._gate.changed:
            self._gate.check_open()
            if isinstance(report, OrderRequest):
                return self._next_order(shard, report.done).to_json(), []
            if isinstance(report, ResultReport):
                self._results.append(result_of(report, arrays))
            elif isinstance(report, ProgressReport):
                self.running.take(shard, report, arrays)
            elif isinstance(report, ObstacleReport):
                self._stumble(f"Shard {shard}: {report.reason}")
            elif isinstance(report, FailureReport):
                self._results.append(report.failure)
            elif isinstance(report, MissingFilesReport):
                self._missing.add(shard)
                why = "runs on an executor without its files" if report.strayed else "lacks files"
                if report.stateless:
                    why = "lacks the state of its shard, which the driver has kept"
                    self.lacks_state = self.lacks_state or self._obstacle is None
                self._stumble(f"The task of shard {shard} {why}.")
            else:
                raise AggregationError(f"A report of kind {report.kind!r} is not expected.")
        return {}, []

    def lost(self, shard: int, attempt: int, reason: str, silent: bool = False) -> None:
        """Note that a task's connection has ended: an obstacle, unless it was told to end."""
        with self._gate.changed:
            if shard not in self._stopped:
                if silent:
                    self.silent.add(shard)
                self._stumble(f"The connection to the task of shard {shard} ended: {reason}")

    def close(self, reason: str = "the job is over") -> None:
        """End every wait, current and later."""
        self._gate.close(reason)

    # -- inside the lock ---------------------------------------------------------------------

    @property
    def _complete(self) -> bool:
        number = self._order.number
        done = all(self._done.get(shard) == number for shard in self.shards)
        return bool(number) and done and not self._missing

    def _next_order(self, shard: int, done: int) -> Order:
        """Return the order after `done`, or `WAIT` if there is none before an answer is due."""
        if done > self._done.get(shard, 0):
            self._done[shard], self._ready_since = done, time.monotonic()
            self._gate.changed.notify_all()
        answer_at = time.monotonic() + self._answer_seconds
        while self._order.number <= done or self._obstacle:
            self._gate.check_open()
            if self._complete and time.monotonic() - self._ready_since > self._idle_seconds:
                self.idled = self.idled or self._ending is None
                self._ending = self._ending or "The driver was busy between two epochs."
            if self._ending or self._obstacle:
                self._stopped.add(shard)
                return STOP
            if time.monotonic() > answer_at:
                return WAIT
            self._gate.changed.wait(self._idle_seconds / 4)
        return self._order

    def _stumble(self, obstacle: str) -> None:
        self._obstacle = self._obstacle or obstacle
        self._gate.changed.notify_all()
