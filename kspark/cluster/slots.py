"""The number of tasks that a cluster runs at the same time, and the threads of each."""

from __future__ import annotations

import os
import re
from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster.accelerators import GPU
from kspark.cluster.resources import executor_amount, task_amount
from kspark.cluster.settings import spark_settings


def task_slots(spark: SparkSession) -> int:
    """Return the number of tasks that can run at the same time.

    The user may have set `spark.default.parallelism` to any number, so the master's URL
    comes first. If the user has set it, the executors' settings decide.
    """
    context = spark.sparkContext
    conf = spark_settings(spark)
    cores = cores_of_master(str(context.master))
    if cores is None and conf.get("spark.default.parallelism") is None:
        cores = context.defaultParallelism
    if cores is None:
        instances = int(conf.get("spark.executor.instances", "1") or 1)
        cores = instances * int(conf.get("spark.executor.cores", "1") or 1)
    slots = cores // threads_per_task(spark)
    per_executor, executors = slots_of_gpus(spark), num_executors(spark, cores)
    if per_executor is not None and executors is not None:
        slots = min(slots, executors * per_executor)
    return max(slots, 1)


def slots_of_gpus(spark: SparkSession) -> int | None:
    """Return the number of tasks for which an executor has GPUs, or `None` if tasks take none."""
    per_task, gpus = task_amount(spark, GPU), int(executor_amount(spark, GPU))
    if not per_task:
        return None
    return gpus // int(per_task) if per_task >= 1 else gpus * tasks_per_gpu(per_task)


def tasks_per_gpu(amount: float) -> int:
    """Return how many tasks share a GPU of which each takes a fraction."""
    return int(1 / amount + 1e-9)  # 1 / 0.1 and the like may be rounded down.


def num_executors(spark: SparkSession, cores: int) -> int | None:
    """Return the number of executors that the settings name, or `None`."""
    conf = spark_settings(spark)
    found = re.match(r"local-cluster\[\s*(\d+)", str(spark.sparkContext.master))
    if found:
        return int(found[1])
    if instances := conf.get("spark.executor.instances"):
        return int(instances)
    per_executor = conf.get("spark.executor.cores")
    return cores // int(per_executor) if per_executor else None


def cores_of_master(master: str) -> int | None:
    """Return the cores that a local master's URL names, or `None` for a real cluster.

    >>> cores_of_master("local[4]"), cores_of_master("local-cluster[2,3,1024]")
    (4, 6)
    """
    found = re.fullmatch(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]", master)
    if found:
        return int(found[1]) * int(found[2])
    found = re.fullmatch(r"local(?:\[\s*(\d+|\*)\s*(?:,\s*\d+\s*)?\])?", master)
    if not found:
        return None
    count = found[1] or "1"
    return (os.cpu_count() or 1) if count == "*" else int(count)


def threads_per_task(spark: SparkSession) -> int:
    """Return the threads that a replica may use, so that tasks share cores.

    They are `spark.task.cpus`, or the cpus of the call's resource profile.
    """
    return int(task_amount(spark, "cpus"))


def addresses_of(spark: SparkSession) -> frozenset[str]:
    """Return the addresses of the driver and of the executors that are registered.

    PySpark has no public way to ask. This one was checked with PySpark 3.5 to 4.3.
    """
    context: Any = getattr(spark.sparkContext, "_jsc").sc()  # noqa: B009
    return frozenset(str(context.getExecutorMemoryStatus().keySet().mkString("\n")).split("\n"))


def executors_may_go(spark: SparkSession) -> bool:
    """Return whether healthy executors may leave in the middle of a fit, as the settings say."""
    settings = ("spark.dynamicAllocation.enabled", "spark.decommission.enabled")
    return any(str(spark.conf.get(name, "false")).lower() == "true" for name in settings)


LOCALITY_LEVELS = ("process", "node", "rack")
MAX_LOCALITY_SECONDS = 60.0


def locality_seconds(spark: SparkSession) -> float:
    """Return after how many seconds Spark gives tasks to executors that they do not prefer.

    It waits once for each level of preference: `spark.locality.wait`, or a time per level. One
    second is added, for Spark's own work, and more than `MAX_LOCALITY_SECONDS` are not returned.
    """
    wait = spark.conf.get("spark.locality.wait", "3s")
    waits = [spark.conf.get(f"spark.locality.wait.{name}", wait) for name in LOCALITY_LEVELS]
    return min(sum(seconds_of(str(one)) for one in waits) + 1.0, MAX_LOCALITY_SECONDS)


def seconds_of(time: str) -> float:
    """Return the seconds of a time as in Spark's settings: with a unit, or in milliseconds.

    >>> seconds_of("3s"), seconds_of("500"), seconds_of("2min")
    (3.0, 0.5, 120.0)
    """
    found = re.fullmatch(r"\s*(\d+)\s*(us|ms|s|m|min|h|d)?\s*", time.lower())
    if not found:
        return 0.0
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    return float(found[1]) * units[found[2] or "ms"]


def has_speculation(spark: SparkSession) -> bool:
    """Return whether Spark may start second tasks beside slow ones: `spark.speculation`.

    It starts them on other hosts only, and so never with a local master.
    """
    on = str(spark.conf.get("spark.speculation", "false")).lower() == "true"
    return on and cores_of_master(str(spark.conf.get("spark.master", ""))) is None
