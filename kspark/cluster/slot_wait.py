"""Task slots that a cluster does not have at the moment, but may have soon."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pyspark.sql import SparkSession

from kspark.cluster.interrupts import interruptible
from kspark.cluster.resources import current_profile
from kspark.cluster.settings import spark_settings
from kspark.cluster.slots import cores_of_master, slots_of_gpus, task_slots, threads_per_task

logger = logging.getLogger("kspark")

WAIT_SECONDS = 25.0
"""How long to wait for executors that start, or that replace lost ones."""

POLL_SECONDS = 0.2

UNLIMITED = 1 << 31
"""Spark's default of `spark.dynamicAllocation.maxExecutors` is infinity, its largest integer."""


def slots_for(
    spark: SparkSession, wanted: int, watch: Callable[[int], None] = lambda slots: None
) -> int:
    """Return the number of task slots. If there are fewer than wanted, wait for more.

    Args:
        spark: `SparkSession`.
        wanted: Integer, the number of tasks that must run at the same time.
        watch: Function that is called with the present number several times per second.

    Returns:
        Integer. With dynamic allocation, this is the number that Spark may allocate: it starts
        executors only when there are tasks for them.
    """
    slots = slots_in_reach(spark)
    if slots >= wanted or not may_change(spark):
        return slots
    logger.info(
        "Waiting up to %g s for task slots: there are %d, and %d workers must run at the same "
        "time. Executors may still be starting.",
        *(WAIT_SECONDS, slots, wanted),
    )
    deadline = time.monotonic() + WAIT_SECONDS
    while slots < wanted and time.monotonic() < deadline:
        watch(slots)
        with interruptible():
            time.sleep(POLL_SECONDS)
        slots = task_slots(spark)
    return slots


def slots_in_reach(spark: SparkSession) -> int:
    """Return the number of task slots at present, or that dynamic allocation may make of them."""
    slots = task_slots(spark)
    return max(slots, allocable_slots(spark)) if is_dynamic(spark) else slots


def is_dynamic(spark: SparkSession) -> bool:
    """Return whether Spark starts and ends executors itself: `spark.dynamicAllocation.enabled`."""
    conf = spark_settings(spark)
    on = str(conf.get("spark.dynamicAllocation.enabled", "false")).lower() == "true"
    return on and cores_of_master(str(spark.sparkContext.master)) is None


def may_change(spark: SparkSession) -> bool:
    """Return whether the number of task slots can grow without tasks that wait for them.

    That of a local master does not change. A `spark.default.parallelism` that the user has set
    hides the present number of cores, and dynamic allocation waits for tasks.
    """
    context = spark.sparkContext
    fixed = cores_of_master(str(context.master)) is not None
    hidden = spark_settings(spark).get("spark.default.parallelism") is not None
    return not (fixed or hidden or is_dynamic(spark))


def allocable_slots(spark: SparkSession) -> int:
    """Return the number of task slots that dynamic allocation may make; see `UNLIMITED`.

    An executor of a standalone cluster has all cores of its host by default, whose number is not
    known before it starts.
    """
    conf = spark_settings(spark)
    most = conf.get("spark.dynamicAllocation.maxExecutors")
    per_executor = tasks_per_executor(spark)
    if most is None or most == "infinity" or per_executor is None:
        return UNLIMITED
    return min(int(most) * per_executor, UNLIMITED)


def tasks_per_executor(spark: SparkSession) -> int | None:
    """Return how many tasks an executor runs at a time, `None` if that is up to the hosts."""
    cores = cores_per_executor(spark)
    if cores is None:
        return None
    with_gpus = slots_of_gpus(spark)
    tasks = cores // threads_per_task(spark)
    return tasks if with_gpus is None else min(tasks, with_gpus)


def cores_per_executor(spark: SparkSession) -> int | None:
    """Return the cores of each executor of this call, or `None` if that is up to the hosts."""
    profile, context = current_profile(), spark.sparkContext
    if profile is not None and "cores" in profile.executorResources:
        return int(profile.executorResources["cores"].amount)
    cores = spark_settings(spark).get("spark.executor.cores")
    if cores is None and not str(context.master).startswith("spark:"):
        return 1
    return None if cores is None else int(cores)
