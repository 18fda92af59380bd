"""Find settings of Spark with which fits fail, or do work again, when something happens."""

from __future__ import annotations

from collections.abc import Iterator

from pyspark.sql import SparkSession

from kspark.cluster.accelerators import GPU, REPLACEMENTS
from kspark.cluster.memory import WorkerMemory, memory_problems
from kspark.cluster.remote import is_connect
from kspark.cluster.resources import executor_amount, task_amount
from kspark.cluster.slot_wait import is_dynamic
from kspark.cluster.slots import cores_of_master, has_speculation

EXCLUDING = (
    "spark.excludeOnFailure.enabled",
    "spark.excludeOnFailure.application.enabled",
    "spark.excludeOnFailure.taskAndStage.enabled",
)


def problems_of_session(spark: SparkSession, memory: WorkerMemory) -> Iterator[str]:
    """Describe the settings of a session that do not go with training.

    Over Spark Connect, there are none: the settings are up to the server.

    Args:
        spark: `SparkSession`.
        memory: `WorkerMemory` of the model that is trained.
    """
    if is_connect(spark):
        return
    yield from memory_problems(spark, memory)
    if cores_of_master(str(spark.sparkContext.master)) is not None:
        return
    yield from problems_of_gpus(spark)
    if is_dynamic(spark):
        yield from problems_of_allocation(spark)
    yield from problems_of_decommissioning(spark)


def problems_of_speculation(spark: SparkSession) -> Iterator[str]:
    """Describe the setting with which fits are refused, for a session that does not fit yet."""
    if has_speculation(spark):
        yield (
            "spark.speculation is on, with which fits are refused. Start the session with "
            "spark.speculation=false."
        )


def problems_of_gpus(spark: SparkSession) -> Iterator[str]:
    """Describe what prevents the replacement of workers whose tasks get another GPU."""
    if not task_amount(spark, GPU) or executor_amount(spark, GPU) < 2:
        return
    tries, needed = int(spark.conf.get("spark.task.maxFailures", None) or 4), REPLACEMENTS + 1
    reason = (
        f"A task that gets another GPU than its worker has used fails up to {REPLACEMENTS} times, "
        "so that Spark runs it in a new worker."
    )
    if tries < needed:
        yield f"{reason} Set spark.task.maxFailures to {needed} or more; it is {tries}."
    for name in EXCLUDING:
        if is_on(spark, name):
            yield (
                f"{reason} With {name}, Spark excludes executors for such failures. Set it to "
                "false, or give each executor one GPU."
            )


def problems_of_allocation(spark: SparkSession) -> Iterator[str]:
    """Describe settings with which dynamic allocation ends executors whose files are needed."""
    idle = spark.conf.get("spark.dynamicAllocation.cachedExecutorIdleTimeout", None)
    if idle is not None and idle != "infinity":
        yield (
            f"spark.dynamicAllocation.cachedExecutorIdleTimeout is {idle}: executors that are idle "
            "for that long end, with the rows that a fit has written to their disks. The rows are "
            "then read and written again. Leave it at infinity."
        )
    tracked = is_on(spark, "spark.dynamicAllocation.shuffleTracking.enabled", "true")
    if not tracked and not is_on(spark, "spark.shuffle.service.enabled"):
        yield (
            "Dynamic allocation has neither spark.dynamicAllocation.shuffleTracking.enabled nor "
            "spark.shuffle.service.enabled: executors may end before others have read what they "
            "have shuffled. Fits with `reshuffle`, and rounds of 16 shards and more, then compute "
            "it again. Turn one of them on."
        )


def problems_of_decommissioning(spark: SparkSession) -> Iterator[str]:
    """Describe settings with which an executor that is leaving does not let its tasks end."""
    limit = spark.conf.get("spark.executor.decommission.forceKillTimeout", None)
    if is_on(spark, "spark.decommission.enabled") and limit is not None:
        yield (
            f"spark.executor.decommission.forceKillTimeout is {limit}: an executor that is being "
            "decommissioned ends tasks that take longer, and what they have trained of the epoch "
            "is trained again. Set it to more than the time of an epoch, or leave it out."
        )


def is_on(spark: SparkSession, name: str, default: str = "false") -> bool:
    """Return whether a setting is true."""
    return str(spark.conf.get(name, default)).lower() == "true"
