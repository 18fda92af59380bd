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
from kspark.worker.tasks import GONE, STATELESS, MissingShard, ShardResult

logger = logging.getLogger("kspark")

BUSY_SECONDS = 0.5
"""Seconds between two submissions while late shards occupy the task slots of a host."""

MAX_STRAYS = 10
"""How often work may be submitted without any result, because all of its tasks run on executors
without their files, before it fails."""

STRAYS_PER_MOVE = 2
"""After how many of these submissions the shards move to where Spark runs their tasks."""


class ShardsMissing(Exception):
    """Tasks have not found the files of their shards.

    Args:
        strayed: Iterable of the shards whose tasks run on executors without their files.
        gone: Iterable of the shards whose files are gone from their own disk. Defaults to none.
    """

    def __init__(self, strayed: Iterable[int], gone: Iterable[int] = ()) -> None:
        self.strayed, self.gone = sorted(strayed), sorted(gone)
        text = f"The tasks of shards {self.strayed} run on executors without their files."
        if self.gone:
            text = f"The files of shards {self.gone} are gone from the disk of their executor."
        super().__init__(text)

    @classmethod
    def of(cls, missing: Iterable[MissingShard]) -> ShardsMissing:
        """Return the exception for the results of tasks."""
        found = list(missing)
        return cls(
            (r.shard for r in found if r.strayed), (r.shard for r in found if r.lack == GONE)
        )


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
    Spark prefers the executor that has a shard's files, but runs the task elsewhere if that one
    stays busy, or leaves. Such a task is submitted again, see `Retries`. If files are gone from
    their own disk, the examples are spooled again first.

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
        ClusterError: If tasks kept running on executors without their files.
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
        before = len(found)
        found |= {r.shard: r for r in shard_results(results)}
        # Spark Connect runs all shards each time, also those that have a result.
        missing = [r for r in results if isinstance(r, MissingShard) and r.shard not in found]
        wanted = sorted(r.shard for r in missing)
        if missing:
            retries.after_missing_files(missing, progress=len(found) > before)
    return [found[shard] for shard in sorted(found) if found[shard].num_examples]


class Retries:
    """Counts how often work was submitted, and prepares the next submission.

    Args:
        spooled: `ShardsOnDisk` that the work reads.
        max_failures: Integer, how often a process may die at the same shard.
        busy: Function that returns whether other tasks of the fit occupy slots. While they do,
            tasks that ran elsewhere are not counted: those slots become free in the end.
        moves: Boolean, whether shards may move to where their tasks run. Defaults to `True`.
    """

    def __init__(
        self,
        spooled: ShardsOnDisk,
        max_failures: int,
        busy: Callable[[], bool] = not_busy,
        *,
        moves: bool = True,
    ) -> None:
        self._moves = moves
        self._spooled = spooled
        self._max_failures = max_failures
        self._busy = busy
        self._failures = self._strays = self._stateless = 0

    def after_lost_job(self, error: Exception) -> None:
        """Count a lost job.

        Raises:
            WorkerError: If jobs were lost too often.
        """
        self._failures = counted(self._failures, self._max_failures, error)

    def after_missing_files(self, missing: Sequence[MissingShard], progress: bool = False) -> None:
        """Count tasks that found no files, and bring together what Spark has parted.

        * Files are gone from their own disk: all shards are spooled again.
        * A state is on the driver, but not beside the rows: it is written there.
        * A task runs on another executor than its files: it only has to be submitted again, if
          other tasks held the slots of that executor. If they did not, `STRAYS_PER_MOVE` times,
          the shards are spooled again, which moves them to executors that have slots.

        Args:
            missing: Sequence of `MissingShard`.
            progress: Boolean, whether other tasks of the same job had results. Defaults to `False`.

        Raises:
            WorkerError: If files were gone too often.
            ClusterError: If tasks kept running on executors without their files, or without the
                state that was written for them.
        """
        parted = ShardsMissing.of(missing)
        stateless = [result.shard for result in missing if result.lack == STATELESS]
        if parted.gone:
            self.after_lost_job(parted)
            logger.warning("Spooling the examples again.")
            self._spooled.respool(delete=not self._busy())
        elif stateless:
            self._stateless += not progress
            bring_states(self._spooled, stateless, self._stateless)
        elif self._busy():
            wait_for_slots(missing)
        elif not progress:
            self._strays = counted_strays(self._strays, missing)
            if self._moves and self._strays % STRAYS_PER_MOVE == 0:
                logger.warning("%s They are spooled again, where there are slots.", parted)
                self._spooled.respool()


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
        raise ShardsMissing.of(r for r in results if isinstance(r, MissingShard))
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
    """Return the number of times that tasks ran on executors without their files, plus one.

    Raises:
        ClusterError: If there were `MAX_STRAYS` before.
    """
    shards = sorted(r.shard for r in missing)
    if strays >= MAX_STRAYS:
        homes, hosts = sorted({r.home for r in missing}), sorted({r.host for r in missing})
        raise ClusterError(
            f"Spark ran the tasks of shards {shards} on executors without their files, "
            f"{strays + 1} times. The last files were written on hosts {homes}, the last tasks ran "
            f"on hosts {hosts}. Either executors leave faster than work is submitted, or other "
            "jobs hold the task slots of those with the files: run fewer jobs at the same time."
        )
    logger.info("Shards %s are submitted again: Spark ran them on other executors.", shards)
    return strays + 1


def bring_states(spooled: ShardsOnDisk, shards: Sequence[int], times: int) -> None:
    """Write the states that the driver keeps of some shards beside their rows.

    Raises:
        ClusterError: If this happened `MAX_STRAYS` times before in one round without another
            result, or if the driver keeps no states of these shards.
    """
    if spooled.states is None:
        raise ClusterError(
            f"The tasks of shards {sorted(shards)} lack optimizer states, of which the driver has "
            "no copies. Start the fit again, from its last checkpoint if it has one."
        )
    if times > MAX_STRAYS:
        raise ClusterError(
            f"The optimizer states of shards {sorted(shards)} were written to their executors "
            f"{times - 1} times, and were gone again each time. Executors leave faster than an "
            "epoch can begin."
        )
    spooled.states.restore(spooled, shards)
