"""Shards on their way through an epoch, each in a Spark job of its own.

A Spark job gives its results all at once. To merge a round without its slowest shards, each
of them trains in a job for its partition alone; one that is late trains on in it.
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
from kspark.cluster.spark_job import POLL_SECONDS, JobLostError, SparkJob
from kspark.job.collecting import Again, done, never
from kspark.job.fit import Fit
from kspark.rounds.task import RoundTask, train_round
from kspark.worker.tasks import MissingShard, ShardResult


@dataclass
class Flight:
    """One shard under way.

    Attributes:
        shard: Integer.
        epoch: Integer, the epoch that it trains.
        task: `Shipped`, what it runs.
        vector: `Shared`, the weights that it began with, which all shards of its round share.
        again: `Again`, how often it was submitted again.
        handles: The `Results` of shard handles that its job reads.
        job: `SparkJob`.
    """

    shard: int
    epoch: int
    task: Shipped
    vector: Shared
    again: Again
    handles: Any
    job: SparkJob


@dataclass(frozen=True)
class Landed:
    """What a shard brought, and the epoch it is of."""

    epoch: int
    result: ShardResult

    def told(self, epoch: int) -> ShardResult:
        """The result, which tells by how many rounds it is late in the round of an epoch."""
        facts = self.result.facts
        late = epoch - self.epoch
        return replace(self.result, facts=facts and replace(facts, rounds_late=late))


class Flights:
    """All shards of a fit that are under way; at the end of the block none is.

    Args:
        fit: `Fit`, whose shards are spooled.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._bell = threading.Event()
        self._under_way: dict[int, Flight] = {}

    def __enter__(self) -> Flights:
        self._fit.busy, self._fit.under_way = self.busy, lambda: self.shards
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._fit.busy, self._fit.under_way = never, frozenset
        with ExitStack() as stack:  # one that fails keeps none of the others
            for flight in list(self._under_way.values()):
                stack.callback(self._remove, flight)
                stack.callback(flight.job.cancel)

    @property
    def shards(self) -> frozenset[int]:
        """The shards that are under way."""
        return frozenset(self._under_way)

    def busy(self) -> bool:
        """Whether a shard's task is at work."""
        return not all(flight.job.finished.is_set() for flight in self._under_way.values())

    def begin(self, shards: Iterable[int], epoch: int) -> None:
        """Let shards train an epoch from the weights as they are now."""
        fit = self._fit
        task = RoundTask(fit.task(), epoch, fit.learning_rate(epoch), fit.last_epoch(epoch))
        vector = engine_of(fit.spark).share(fit.aggregator.weights.copy())
        shipped = ship(train_round, task, shared=(fit.shared_spec, vector))
        for shard in shards:
            again = Again(fit.train, fit.plan.max_failures, self.busy)
            self._submit(shard, epoch, shipped, vector, again)

    def wait(self, seconds: float) -> list[Landed]:
        """What has come by the time something has, or after so many seconds, or a moment.

        Raises:
            WorkerError: If a replica failed, or its job was lost too often.
        """
        with interruptible():
            self._bell.wait(min(seconds, POLL_SECONDS))
        self._bell.clear()
        ended = [flight for flight in self._under_way.values() if flight.job.finished.is_set()]
        return [landed for flight in ended for landed in self._landed(flight)]

    def _submit(self, shard: int, epoch: int, task: Shipped, vector: Shared, again: Again) -> None:
        """Start the job of one shard, in the place of its last one."""
        spark, handles = self._fit.spark, self._fit.train.handles
        results = handles.mapPartitionsWithIndex(task)
        what = f"kspark: epoch {epoch + 1}, shard {shard}"
        started = SparkJob(spark, results, what, [shard], self._bell).start()
        self._under_way[shard] = Flight(shard, epoch, task, vector, again, handles, started)

    def _landed(self, flight: Flight) -> list[Landed]:
        """The result of a shard whose job has ended; none if it has to start again."""
        try:
            results = flight.job.result()
        except JobLostError as error:
            flight.again.lost(error)
        else:
            found = done(results)
            missing = [result for result in results if isinstance(result, MissingShard)]
            if not missing:
                self._remove(flight)
                return [Landed(flight.epoch, result) for result in found]
            if flight.handles is self._fit.train.handles:  # else they are written again already
                flight.again.missing(missing)
        self._submit(flight.shard, flight.epoch, flight.task, flight.vector, flight.again)
        return []

    def _remove(self, flight: Flight) -> None:
        """Forget a shard; weights that nobody else began with are not needed any more."""
        del self._under_way[flight.shard]
        if all(other.vector is not flight.vector for other in self._under_way.values()):
            flight.vector.destroy()
