"""One Spark job per shard and epoch, so that a round can be merged without its slowest shards.

A Spark job returns all results at once. With a job for each shard, the driver gets each result
when it is there, while late shards continue to train.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from kspark.cluster.bootstrap import Shipped, ship
from kspark.cluster.engine import Shared, engine_of
from kspark.cluster.interrupts import interruptible
from kspark.cluster.records import in_records
from kspark.cluster.spark_job import POLL_SECONDS, JobLostError, SparkJob
from kspark.job.collecting import Retries, not_busy, shard_results
from kspark.job.fit import Fit
from kspark.rounds.task import RoundTask, train_round
from kspark.worker.tasks import MissingShard, ShardResult


@dataclass
class ShardJob:
    """The job of a shard that trains.

    Attributes:
        shard: Integer.
        epoch: Integer, the epoch that it trains.
        task: `Shipped`, the function that it runs.
        weights: `Shared`, the weights that it started from, which all shards of a round share.
        retries: `Retries`.
        handles: `Results`, the shard handles that it reads.
        job: `SparkJob`.
    """

    shard: int
    epoch: int
    task: Shipped
    weights: Shared
    retries: Retries
    handles: Any
    job: SparkJob


@dataclass(frozen=True)
class TrainedShard:
    """The result of a shard that has trained an epoch.

    Attributes:
        epoch: Integer.
        result: `ShardResult`.
    """

    epoch: int
    result: ShardResult

    def merged_in(self, epoch: int) -> ShardResult:
        """Return the result with `rounds_late` set, for the round of an epoch that merges it."""
        facts = self.result.facts
        late = epoch - self.epoch
        return replace(self.result, facts=facts and replace(facts, rounds_late=late))


class ShardJobs:
    """The running jobs of a fit's shards. Use it as a context manager, which cancels them.

    Args:
        fit: `Fit` whose examples are spooled.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._job_ended = threading.Event()
        self._running: dict[int, ShardJob] = {}

    def __enter__(self) -> ShardJobs:
        self._fit.busy, self._fit.late_shards = self.busy, lambda: self.shards
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._fit.busy, self._fit.late_shards = not_busy, frozenset
        with ExitStack() as stack:  # an exception does not prevent the other callbacks
            for running in list(self._running.values()):
                stack.callback(self._remove, running)
                stack.callback(running.job.cancel)

    @property
    def shards(self) -> frozenset[int]:
        """The shards whose results have not been returned by `wait`."""
        return frozenset(self._running)

    def busy(self) -> bool:
        """Whether a job is running, and may occupy a task slot."""
        return not all(running.job.finished.is_set() for running in self._running.values())

    def start(self, shards: Iterable[int], epoch: int) -> None:
        """Start a job per shard, which trains an epoch from the global weights of this moment."""
        fit = self._fit
        rate, last = fit.learning_rate(epoch), fit.last_epoch(epoch)
        task = RoundTask(fit.task(), epoch, rate, last, counters=fit.new_counters)
        weights = engine_of(fit.spark).share(fit.aggregator.weights.copy())
        shipped = ship(train_round, task, shared=(fit.shared_spec, weights))
        for shard in shards:
            retries = Retries(fit.train, fit.plan.max_failures, self.busy)
            self._submit(shard, epoch, shipped, weights, retries)

    def wait(self, seconds: float) -> list[TrainedShard]:
        """Wait until a job ends, for at most `seconds` or `POLL_SECONDS`, and return its result.

        Returns:
            List of `TrainedShard`, one for each job that has ended; may be empty.

        Raises:
            WorkerError: If a replica failed, or its job was lost too often.
        """
        with interruptible():
            self._job_ended.wait(min(seconds, POLL_SECONDS))
        self._job_ended.clear()
        ended = [running for running in self._running.values() if running.job.finished.is_set()]
        return [trained for running in ended for trained in self._take_result(running)]

    def _submit(
        self, shard: int, epoch: int, task: Shipped, weights: Shared, retries: Retries
    ) -> None:
        """Start the job of one shard, instead of an earlier one."""
        spark, handles = self._fit.spark, self._fit.train.handles
        results = handles.mapPartitionsWithIndex(in_records(task))
        description = f"kspark: epoch {epoch + 1}, shard {shard}"
        job = SparkJob(spark, results, description, [shard], self._job_ended).start()
        self._running[shard] = ShardJob(shard, epoch, task, weights, retries, handles, job)

    def _take_result(self, running: ShardJob) -> list[TrainedShard]:
        """Return the result of an ended job; an empty list if the job is submitted again."""
        try:
            results = running.job.result()
        except JobLostError as error:
            running.retries.after_lost_job(error)
        else:
            found = shard_results(results)
            missing = [result for result in results if isinstance(result, MissingShard)]
            if not missing:
                self._remove(running)
                self._fit.states.trained[running.shard] = running.epoch
                found = self._fit.states.take(found, running.epoch)
                return [TrainedShard(running.epoch, result) for result in found]
            if running.handles is self._fit.train.handles:  # not yet spooled again
                running.retries.after_missing_files(missing)
        self._submit(running.shard, running.epoch, running.task, running.weights, running.retries)
        return []

    def _remove(self, running: ShardJob) -> None:
        """Remove a job, and its weights if no other job started from them."""
        del self._running[running.shard]
        if all(other.weights is not running.weights for other in self._running.values()):
            running.weights.destroy()
