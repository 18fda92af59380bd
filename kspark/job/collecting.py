"""Collect the results of all shards of a fit, and submit to Spark again those that are missing."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster.bootstrap import Shipped
from kspark.cluster.failures import worker_error
from kspark.cluster.interrupts import interruptible
from kspark.cluster.records import in_records
from kspark.cluster.spark_errors import brief
from kspark.cluster.spark_job import JobLostError, Watch, lost_for_good, run
from kspark.errors import ClusterError, Failure
from kspark.job.spooling import ShardsOnDisk
from kspark.worker.tasks import MissingShard, ShardResult

logger = logging.getLogger("kspark")

BUSY_SECONDS = 0.5
"""Seconds between two submissions while late shards occupy the task slots of a host."""

MAX_STRAYS = 10
"""How often the tasks of one job may run on hosts without their files before it fails."""


class ShardsMissing(Exception):
    """The files of a shard are gone from their host: the examples have to be spooled again."""

    def __init__(self) -> None:
        super().__init__("The files of a shard are gone from its host.")


def not_busy() -> bool:
    """The default of `Retries`: no other task of the fit occupies a slot."""
    return False


def collect_shards(
    spark: SparkSession,
    spooled: ShardsOnDisk,
    task: Shipped,
    description: str,
    max_failures: int,
    busy: Callable[[], bool] = not_busy,
    wanted: list[int] | None = None,
    watch: Watch | None = None,
) -> list[ShardResult]:
    """Run a task on every shard, and return the results of shards with examples, by shard.

    Results of a submission are kept; only shards without a result are submitted again.
    Spark prefers the host that has a shard's files, but runs the task elsewhere if that host
    stays busy. Such a task is submitted again. If files are gone from their own host, the
    examples are spooled again first.

    Args:
        spark: `SparkSession`.
        spooled: `ShardsOnDisk`.
        task: `Shipped`, called with partition index and handles.
        description: String, for Spark's UI.
        max_failures: Integer, how often a process may die at the same shard.
        busy: Function, see `Retries`.
        wanted: List of the shards to run. Defaults to `None`, all.
        watch: `Watch` of the jobs. Defaults to `None`.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    found: dict[int, ShardResult] = {}
    retries = Retries(spooled, max_failures, busy)
    while wanted is None or wanted:
        try:
            rdd = spooled.handles.mapPartitionsWithIndex(in_records(task))
            results = run(spark, rdd, description, wanted, watch=watch)
        except JobLostError as error:
            retries.after_lost_job(error)
            continue
        found |= {r.shard: r for r in shard_results(results)}
        # Spark Connect runs all shards each time, also those that have a result.
        missing = [r for r in results if isinstance(r, MissingShard) and r.shard not in found]
        wanted = sorted(r.shard for r in missing)
        if missing:
            retries.after_missing_files(missing)
    return [found[shard] for shard in sorted(found) if found[shard].num_examples]


class Retries:
    """Counts how often work was submitted, and prepares the next submission.

    Args:
        spooled: `ShardsOnDisk` that the work reads.
        max_failures: Integer, how often a process may die at the same shard.
        busy: Function that returns whether other tasks of the fit occupy slots. While they do,
            tasks that ran on other hosts are not counted: those slots become free in the end.
    """

    def __init__(
        self,
        spooled: ShardsOnDisk,
        max_failures: int,
        busy: Callable[[], bool] = not_busy,
    ) -> None:
        self._spooled = spooled
        self._max_failures = max_failures
        self._busy = busy
        self._failures = self._strays = 0

    def after_lost_job(self, error: Exception) -> None:
        """Count a lost job.

        Raises:
            WorkerError: If jobs were lost too often.
        """
        self._failures = counted(self._failures, self._max_failures, error)

    def after_missing_files(self, missing: Sequence[MissingShard]) -> None:
        """Count tasks that found no files. Spool again if files are gone from their own host.

        Raises:
            WorkerError: If files were gone too often.
            ClusterError: If tasks kept running on hosts without their files.
        """
        if not all(result.strayed for result in missing):
            self.after_lost_job(ShardsMissing())
            self._spooled.respool()
        elif self._busy():
            wait_for_slots(missing)
        else:
            self._strays = counted_strays(self._strays, missing)


def shard_results(results: Iterable[Any]) -> list[ShardResult]:
    """Select the results of shards from what a job returned.

    Raises:
        WorkerError: If there is a failure.
    """
    results = list(results)
    for result in results:
        if isinstance(result, Failure):
            raise worker_error(result)
    return [r for r in results if isinstance(r, ShardResult)]


def missing_of(documents: Sequence[bytes]) -> list[MissingShard]:
    """Return the shards that tasks did not find, without repetitions."""
    found = {document for document in documents if document.startswith(b'{"missing"')}
    return [MissingShard(**json.loads(document)["missing"]) for document in sorted(found)]


def checked(results: Sequence[Any]) -> list[ShardResult]:
    """Select the results of shards with examples, in the order of the shards.

    Raises:
        WorkerError: If there is a failure.
        ShardsMissing: If a task found no files of its shard.
    """
    found = shard_results(results)
    if any(isinstance(r, MissingShard) for r in results):
        raise ShardsMissing
    return sorted((r for r in found if r.num_examples), key=lambda r: r.shard)


def counted(failures: int, max_failures: int, error: Exception) -> int:
    """Return the number of failures, increased by one, unless there are too many.

    One submission more than `max_failures` allows is made: a shard whose process keeps dying
    counts that itself, and its error says more.

    Raises:
        WorkerError: If there were more than `max_failures` failures before.
    """
    if failures > max_failures:
        raise lost_for_good(error) from error.__cause__
    logger.warning(
        "A Spark job failed, and what is missing of its results is computed again: %s.",
        brief(error),
    )
    return failures + 1


def wait_for_slots(missing: Sequence[MissingShard]) -> None:
    """Sleep for `BUSY_SECONDS` while late shards occupy the slots of the hosts with the files."""
    shards = sorted(result.shard for result in missing)
    logger.info("Shards %s wait for task slots that late shards occupy on their hosts.", shards)
    with interruptible():
        time.sleep(BUSY_SECONDS)


def counted_strays(strays: int, missing: Sequence[MissingShard]) -> int:
    """Return the number of times that tasks ran on hosts without their files, plus one.

    Raises:
        ClusterError: If there were `MAX_STRAYS` before.
    """
    shards = sorted(r.shard for r in missing)
    if strays >= MAX_STRAYS:
        raise ClusterError(
            f"Spark ran the tasks of shards {shards} on hosts without their files, "
            f"{strays + 1} times. Raise spark.locality.wait, turn spark.speculation off, "
            "or use fewer or more even partitions."
        )
    logger.info("Shards %s are submitted again: Spark ran them on other hosts.", shards)
    return strays + 1
