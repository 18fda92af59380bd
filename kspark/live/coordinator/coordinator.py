"""The shared state of a live fit, and its lock.

The driver has one `Coordinator` per live `fit`. The transport calls it from one thread per replica.
The thread that runs `fit` waits on it for epochs. It opens no socket and starts no thread.

* Asynchronous and hogwild replicas call `push`. Each push has the shard's sequence number. A push
  that was applied before is answered, but not applied again, so a retried task loses or repeats
  none. With a bound on the staleness, replicas that are too far ahead wait (see `clocks`).
* Synchronous replicas meet in `reduce` (see `rendezvous`). If one of them comes back as a new
  attempt in the middle of an epoch, the answer to the others is a restart of the epoch.
* An epoch is *settled* when every shard has finished it, and *closed* when the driver has finished
  its metrics and callbacks. In between, synchronous replicas wait, because a callback may change
  the weights. A settled epoch never starts again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kspark.aggregator import Aggregator
from kspark.errors import AggregationError, Failure
from kspark.live.coordinator.attendance import Attendance
from kspark.live.coordinator.clocks import Clocks
from kspark.live.coordinator.gate import Gate
from kspark.live.coordinator.meetings import Meetings
from kspark.live.coordinator.progress import Answer, Apart, EpochReport, FitProgress, ShardPlan
from kspark.live.coordinator.pushes import Pushes
from kspark.live.coordinator.rendezvous import OVER, Rendezvous
from kspark.live.coordinator.running import Running
from kspark.live.wire import Instructions, Restart, SharedOffer, Welcome
from kspark.live.wire.reports import (
    EpochEnd,
    FailureReport,
    MissingFilesReport,
    WaitingReport,
    read_report,
)
from kspark.shards import LearningRate
from kspark.weights import PackingScheme, Whole

logger = logging.getLogger("kspark")


class Coordinator:
    """The shared state of a live `fit`.

    Args:
        aggregator: `Aggregator`.
        shards: Mapping from shard index to `ShardPlan`, for shards with examples.
        packing: `PackingScheme` of deltas and gradients, and of the mean gradients in answers.
        first_epoch: Integer, the first epoch of the fit. Defaults to `0`.
        merge_gradients: Boolean, whether synchronous replicas exchange gradients, and weights at
            the end of the epoch, instead of deltas. Defaults to `False`.
        batch_size: Integer, examples per local batch. Defaults to `None`: each delta is one batch.
        max_staleness: Integer, exchanges that a replica may be ahead. Defaults to `None`, no bound.
        timeout: Float, seconds to wait for a lost replica. Defaults to `60.0`.
        marks: See `Running`. Defaults to `None`.

    Attributes:
        failure: `Failure` that a replica reported, or `None`.
        missing: Set of shards whose replica found no files.
        strayed: Set of those among them whose replica runs on an executor without the files.
        instructions: `Instructions` for all replicas.
        offers: Mapping from shard to the `SharedOffer` of its welcome.
        apart: `Apart` of replicas that add to the weights in shared memory, or `None`.
        rendezvous: `Rendezvous` of synchronous replicas, or `None`.
        running: `Running`, how far the replicas have come within an epoch.
        attendance: `Attendance`, which replicas of the current job are there.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        shards: dict[int, ShardPlan],
        packing: PackingScheme,
        *,
        first_epoch: int = 0,
        merge_gradients: bool = False,
        batch_size: int | None = None,
        max_staleness: int | None = None,
        timeout: float = 60.0,
        marks: int | None = None,
    ) -> None:
        self.aggregator = aggregator
        self.shards = shards
        self.total_examples = sum(s.num_examples for s in shards.values())
        self.steps = max(s.exchanges for s in shards.values())
        self.timeout = timeout
        self.failure: Failure | None = None
        self.missing, self.strayed = set[int](), set[int]()
        self.instructions = Instructions()
        self.offers: dict[int, SharedOffer] = {}
        self.apart: Apart | None = None
        self._gate = Gate()
        self.running = Running(marks)
        self._progress = FitProgress(shards, first_epoch, self.running)
        self.attendance = Attendance(self._progress, self._gate, aggregator.mode, timeout)
        self._clocks: Clocks | None = None
        if max_staleness is not None:
            self._clocks = Clocks(self._progress, self._gate, max_staleness, self.steps, timeout)
        self._pushes = Pushes(aggregator, self._progress, self._gate, batch_size, self._clocks)
        self._meetings: Meetings | None = None
        self.rendezvous: Rendezvous | None = None
        if aggregator.mode == "synchronous":
            examples = {s: p.num_examples for s, p in shards.items()}
            replies = (packing if merge_gradients else Whole(packing.spec)).packer()
            self.rendezvous = Rendezvous(
                aggregator, examples, self.steps or None, merge_gradients, replies, batch_size
            )
            self._meetings = Meetings(self.rendezvous, self._progress, self._gate, timeout)

    # -- called by the transport, one thread per replica ---------------------------------

    def hello(self, shard: int, attempt: int) -> Welcome:
        """Admit a replica. Returns its `Welcome`, with the position of its shard.

        Raises:
            AggregationError: If the shard is unknown, or a newer attempt was admitted.
        """
        with self._gate.changed:
            self._gate.check_open()
            state = self._progress.shards.get(shard)
            if state is None:
                raise AggregationError(f"Shard {shard} does not belong to this fit.")
            if attempt < max(state.attempt, self.attendance.oldest_attempt):
                raise AggregationError(f"Attempt {attempt} of shard {shard} was superseded.")
            returning = self._progress.admit(shard, attempt, self.apart)
            if self._meetings is None:
                self._progress.catch_up(shard)
            elif returning:
                self._meetings.restart("A worker was lost and came back.")
            self._gate.changed.notify_all()
            return self._welcome(shard)

    def _welcome(self, shard: int) -> Welcome:
        return Welcome(
            self.steps,
            leader=shard == min(self.shards),
            version=self.aggregator.version,
            start=self._meetings.start() if self._meetings else self._progress.start_of(shard),
            instructions=self.instructions,
            shared=self.offers.get(shard),
        )

    def pull(self, shard: int, attempt: int, out: np.ndarray) -> tuple[int, Instructions]:
        """Write the current weights into `out`, once the driver has closed a settled epoch.

        With a bound on the staleness, the answer waits until the replica may continue. If that
        takes too long, the instructions have `hold`, and the replica asks again.

        Raises:
            AggregationError: If the attempt was superseded.
            ConnectionLostError: If another synchronous replica was lost and did not come back.
        """
        check = partial(self._check_current, shard, attempt)
        if self._meetings is None:
            with self._gate.changed:
                complete = self._gate.wait(self.attendance.complete, self.timeout, check)
            if not complete:
                return self.aggregator.pull(out), self._instructions(False)
            version, free = self._pushes.pull(shard, out, check)
            return version, self._instructions(free)
        with self._gate.changed:
            check()
            self._meetings.enter(self.attendance.complete)
        return self.aggregator.pull(out), self.instructions

    def push(
        self,
        shard: int,
        attempt: int,
        sequence: int,
        base_version: int,
        num_examples: int,
        delta: np.ndarray,
        out: np.ndarray,
    ) -> tuple[int, Instructions]:
        """Apply a delta unless it was applied before, and write the new weights into `out`.

        The answer to a replica that keeps its own weights is the gap (see `Aggregator`). With a
        bound on the staleness, the answer waits as in `pull`.

        Raises:
            AggregationError: If the attempt was superseded, or a push is missing before this one.
        """
        check = partial(self._check_current, shard, attempt)
        numbers = (sequence, base_version, num_examples)
        version, free = self._pushes.push(shard, *numbers, delta, out, check)
        return version, self._instructions(free)

    def _instructions(self, free: bool, restart: Restart | None = None) -> Instructions:
        """Return the instructions for a replica that may continue (`free`), or must ask again."""
        return replace(self.instructions, hold=not free, restart=restart)

    def reduce(
        self,
        shard: int,
        attempt: int,
        sequence: int,
        num_examples: int,
        vector: np.ndarray | None,
        out: np.ndarray,
    ) -> tuple[int, Instructions, int | np.ndarray]:
        """Meet all other replicas at one exchange. The last replica to arrive merges.

        Args:
            shard: Integer.
            attempt: Integer.
            sequence: Integer, generation and step (see `rendezvous`).
            num_examples: Integer, number of examples of `vector`.
            vector: Gradient or delta of this replica, or `None` if it has no batches left.
            out: Vector for the answer.

        Returns:
            Tuple of the weights' version, the instructions, and the answer: the number of
            elements of `out` to send, or a mean gradient that all replicas share, or its payload.

        Raises:
            AggregationError: If the vectors cannot be merged, which ends the fit.
            ConnectionLostError: If another replica does not arrive in time.
        """
        if self._meetings is None:
            raise AggregationError(f'Replicas do not meet in mode "{self.aggregator.mode}".')
        with self._gate.changed:
            self._check_current(shard, attempt)
            merged = self._meetings.exchange(shard, sequence, vector, num_examples)
            if merged is None:
                again = self._instructions(True, self._meetings.again())
                return self.aggregator.version, again, 0
        if merged is OVER:
            return self.aggregator.version, replace(self.instructions, over=True), 0
        if merged is not self.aggregator.weights:
            return self.aggregator.version, self.instructions, merged
        np.copyto(out, merged)
        return self.aggregator.version, self.instructions, merged.size

    def report(
        self, shard: int, attempt: int, meta: dict[str, Any], arrays: Sequence[np.ndarray]
    ) -> Answer:
        """Take a report of a replica, as JSON data.

        Raises:
            AggregationError: If its kind is unknown.
            ProtocolError: If it is malformed.
        """
        with self._gate.changed:
            self._check_current(shard, attempt)
            report = read_report(meta)
            if self._meetings is not None and isinstance(report, EpochEnd | WaitingReport):
                return self._instructions(*self._meetings.answer(shard, report)).to_json(), []
            if isinstance(report, EpochEnd):
                self._progress.finish(shard, report.epoch, report.sequence or 0)
                self._gate.changed.notify_all()
                return self.instructions.to_json(), []
            if isinstance(report, FailureReport):  # Reports of further failures are refused.
                self.failure = report.failure
                self._gate.close(f"shard {shard} failed")
            if isinstance(report, MissingFilesReport):
                self.missing.add(shard)  # The driver writes the files again.
                self.strayed |= {shard} if report.strayed else set()
            return self._progress.note(shard, report, arrays)

    def lost(self, shard: int, attempt: int, reason: str, silent: bool = False) -> None:
        """Note that a replica's connection ended. The replica may come back as a new attempt."""
        with self._gate.changed:
            state = self._progress.shards.get(shard)
            if state is not None and state.attempt == attempt and state.connected:
                state.connected, state.lost_since = False, time.monotonic()
                self._gate.changed.notify_all()
        logger.debug("The connection of shard %d, attempt %d ended: %s", shard, attempt, reason)

    def close(self, reason: str = "the fit is over") -> None:
        """End every wait, current and later."""
        self._gate.close(reason)

    @property
    def merges(self) -> int:
        """Number of merges per epoch, of deltas or of gradients; 0 if nobody knows it before."""
        if self._meetings is not None:
            return self.steps
        return sum(shard.exchanges for shard in self.shards.values())

    # -- called by the thread that runs `fit` ---------------------------------------------

    def begin_job(
        self, oldest_attempt: int, stop_epoch: int | None = None, *, together: bool = False
    ) -> None:
        """Begin a new Spark job, and refuse replicas of earlier jobs from now on.

        A synchronous epoch that an earlier job did not finish starts again.

        Args:
            oldest_attempt: Integer. Attempts with smaller numbers belong to earlier jobs.
            stop_epoch: Integer, epoch that the job stops before. Defaults to `None`, unknown.
            together: Boolean, whether replicas begin when all have connected. Defaults to `False`.
        """
        with self._gate.changed:
            self.attendance.begin_job(oldest_attempt, stop_epoch, together)
            self.missing, self.strayed = set(), set()
            if self._clocks is not None:
                self._clocks.begin_job(stop_epoch)
            if self._meetings is not None:
                self._meetings.restart("The job was lost.")
            self._gate.changed.notify_all()

    def wait_for_epoch(self, epoch: int, seconds: float) -> EpochReport | None:
        """Wait at most `seconds` until every shard has finished `epoch`.

        Returns:
            The `EpochReport`, or `None` if the epoch is not finished.

        Raises:
            KSparkError: If the vectors of the replicas could not be merged.
        """
        with self._gate.changed:
            self._gate.changed.wait_for(
                lambda: self._progress.finished(epoch) or self._gate.reason is not None, seconds
            )
            if self._gate.error is not None:
                raise self._gate.error
            return self._progress.report_of(epoch) if self._progress.finished(epoch) else None

    def close_epoch(self, epoch: int, *, stop: bool, learning_rate: LearningRate) -> None:
        """Close an epoch, so that synchronous replicas begin the next one.

        Args:
            epoch: Integer, the settled epoch.
            stop: Boolean, whether training is over.
            learning_rate: `LearningRate` of the next epoch.
        """
        with self._gate.changed:
            self.instructions = Instructions(stop, learning_rate)
            self._progress.close(epoch)
            if self._meetings is not None:
                self._meetings.begin_epoch()
            if self._clocks is not None and stop:
                self._clocks.stop()
            self._gate.changed.notify_all()

    def _check_current(self, shard: int, attempt: int) -> None:
        self._gate.check_open()
        if self._progress.shards[shard].attempt != attempt:
            raise AggregationError(f"Attempt {attempt} of shard {shard} was superseded.")
