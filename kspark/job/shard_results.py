"""The results of all shards of a fit, however often Spark has to be asked for some of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from pyspark.sql import SparkSession

from kspark.bootstrap import Shipped
from kspark.errors import ClusterError, Failure
from kspark.job.spark_job import JobLostError, lost_for_good, run, worker_error
from kspark.job.spooling import SpooledExamples
from kspark.worker.results import MissingShard, RoundResult

logger = logging.getLogger("kspark")

MAX_STRAYS = 10
"""How often the tasks of one job may run beside their files before `collect_shards` gives up."""


class ShardsMissing(Exception):
    """A task found its shard's files gone: the examples have to be spooled again."""

    def __init__(self) -> None:
        super().__init__("The files of a shard are gone from its host.")


def collect_shards(
    spark: SparkSession,
    spooled: SpooledExamples,
    task: Shipped,
    description: str,
    max_failures: int,
) -> list[RoundResult]:
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

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    found: dict[int, RoundResult] = {}
    wanted: list[int] | None = None
    failures = strays = 0
    while wanted is None or wanted:
        try:
            rdd = spooled.handles.mapPartitionsWithIndex(task)
            results = run(spark, rdd, description, wanted)
        except JobLostError as error:
            failures = counted(failures, max_failures, error)
            continue
        found |= {r.shard: r for r in done(results)}
        missing = [r for r in results if isinstance(r, MissingShard)]
        wanted = sorted(r.shard for r in missing)
        if missing and all(r.strayed for r in missing):
            strays = counted_strays(strays, missing)
        elif missing:
            failures = counted(failures, max_failures, ShardsMissing())
            spooled.respool()
    return [found[shard] for shard in sorted(found) if found[shard].num_examples]


def done(results: Iterable[Any]) -> list[RoundResult]:
    """The results among what came back.

    Raises:
        WorkerError: If a failure is among it.
    """
    results = list(results)
    for result in results:
        if isinstance(result, Failure):
            raise worker_error(result)
    return [r for r in results if isinstance(r, RoundResult)]


def checked(results: Sequence[Any]) -> list[RoundResult]:
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
