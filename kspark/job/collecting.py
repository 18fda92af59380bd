"""The results of all shards of a fit, however often Spark has to be asked for some of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster.bootstrap import Shipped
from kspark.cluster.failures import lost_for_good, worker_error
from kspark.cluster.interrupts import interruptible
from kspark.cluster.spark_job import JobLostError, run
from kspark.errors import ClusterError, Failure
from kspark.job.spooling import SpooledExamples
from kspark.worker.tasks import MissingShard, ShardResult

logger = logging.getLogger("kspark")

BUSY_SECONDS = 0.5
"""How long `collect_shards` waits for late shards to end before it asks Spark again."""

MAX_STRAYS = 10
"""How often the tasks of one job may run beside their files before `collect_shards` gives up."""


class ShardsMissing(Exception):
    """A task found its shard's files gone: the examples have to be spooled again."""

    def __init__(self) -> None:
        super().__init__("The files of a shard are gone from its host.")


def never() -> bool:
    """Nothing else is at work."""
    return False


def collect_shards(
    spark: SparkSession,
    spooled: SpooledExamples,
    task: Shipped,
    description: str,
    max_failures: int,
    busy: Callable[[], bool] = never,
) -> list[ShardResult]:
    """Run a task on every shard that has examples for it; results in the order of the shards.

    What one submission brought is kept: only shards without a result are asked for again.
    A task that ran on a host without its shard's files (Spark prefers the right host, but
    does not wait for it for ever) goes back to Spark; files that are gone from their own
    host are written again.

    Args:
        spark: `SparkSession`.
        spooled: `SpooledExamples`.
        task: `Shipped`, called with partition index and handles.
        description: String, for Spark's UI.
        max_failures: Integer, how often a process may die at the same shard.
        busy: Function, see `Again`.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    found: dict[int, ShardResult] = {}
    wanted: list[int] | None = None
    again = Again(spooled, max_failures, busy)
    while wanted is None or wanted:
        try:
            rdd = spooled.handles.mapPartitionsWithIndex(task)
            results = run(spark, rdd, description, wanted)
        except JobLostError as error:
            again.lost(error)
            continue
        found |= {r.shard: r for r in done(results)}
        # Spark Connect brings all shards again, also those that have their result.
        missing = [r for r in results if isinstance(r, MissingShard) and r.shard not in found]
        wanted = sorted(r.shard for r in missing)
        if missing:
            again.missing(missing)
    return [found[shard] for shard in sorted(found) if found[shard].num_examples]


class Again:
    """Counts how often work is submitted again, and makes ready for that.

    Args:
        spooled: `SpooledExamples` that the work is about.
        max_failures: Integer, how often a process may die at the same shard.
        busy: Function, whether other work holds slots beside the files. Tasks that ran
            elsewhere are not counted then: there is an end to it.
    """

    def __init__(
        self,
        spooled: SpooledExamples,
        max_failures: int,
        busy: Callable[[], bool] = never,
    ) -> None:
        self._spooled = spooled
        self._max_failures = max_failures
        self._busy = busy
        self._failures = self._strays = 0

    def lost(self, error: Exception) -> None:
        """A job was lost.

        Raises:
            WorkerError: If that happened too often.
        """
        self._failures = counted(self._failures, self._max_failures, error)

    def missing(self, missing: Sequence[MissingShard]) -> None:
        """Tasks found no files. Those that are gone from their own host are written again.

        Raises:
            WorkerError: If that happened too often.
            ClusterError: If tasks kept running on hosts without their files.
        """
        if all(result.strayed for result in missing):
            if self._busy():
                wait_for_slots(missing)
            else:
                self._strays = counted_strays(self._strays, missing)
            return
        self.lost(ShardsMissing())
        self._spooled.respool()


def done(results: Iterable[Any]) -> list[ShardResult]:
    """The results among what came back.

    Raises:
        WorkerError: If a failure is among it.
    """
    results = list(results)
    for result in results:
        if isinstance(result, Failure):
            raise worker_error(result)
    return [r for r in results if isinstance(r, ShardResult)]


def checked(results: Sequence[Any]) -> list[ShardResult]:
    """Results of a job in the order of the shards; those without examples are left out.

    Raises:
        WorkerError: If one is a failure.
        ShardsMissing: If one found its shard's files gone.
    """
    found = done(results)
    if any(isinstance(r, MissingShard) for r in results):
        raise ShardsMissing
    return sorted((r for r in found if r.num_examples), key=lambda r: r.shard)


def counted(failures: int, max_failures: int, error: Exception) -> int:
    """One failure more; too many are the end.

    A submission more than `max_failures` allows is made: a shard whose process keeps
    dying counts that itself, and says so in better words.

    Raises:
        WorkerError: If it was lost too often.
    """
    if failures > max_failures:
        raise lost_for_good(error) from error
    logger.warning("Some of the work is submitted again: %s", error)
    return failures + 1


def wait_for_slots(missing: Sequence[MissingShard]) -> None:
    """A moment, before tasks are asked for again that other tasks keep from their host."""
    shards = sorted(result.shard for result in missing)
    logger.info("Shards %s wait for a slot on their host, where late shards are at work.", shards)
    with interruptible():
        time.sleep(BUSY_SECONDS)


def counted_strays(strays: int, missing: Sequence[MissingShard]) -> int:
    """One time more that tasks ran beside their files.

    Raises:
        ClusterError: If it happened too often.
    """
    shards = sorted(r.shard for r in missing)
    if strays >= MAX_STRAYS:
        raise ClusterError(
            f"Spark ran the tasks of shards {shards} on other hosts than the ones that have their "
            f"files, {strays + 1} times. Raise spark.locality.wait, turn spark.speculation off, "
            "or use fewer or more even partitions."
        )
    logger.info("Shards %s are asked for again: Spark ran them on another host.", shards)
    return strays + 1
