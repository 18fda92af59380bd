"""The number of tasks that a cluster runs at the same time, and the threads of each."""

from __future__ import annotations

import os
import re

from pyspark.sql import SparkSession


def task_slots(spark: SparkSession) -> int:
    """Return the number of tasks that can run at the same time.

    The user may have set `spark.default.parallelism` to any number, so the master's URL
    comes first. If the user has set it, the executors' settings decide.
    """
    context = spark.sparkContext
    conf = context.getConf()
    cpus = int(conf.get("spark.task.cpus", "1") or 1)
    cores = cores_of_master(str(context.master))
    if cores is None and conf.get("spark.default.parallelism") is None:
        cores = context.defaultParallelism
    if cores is None:
        instances = int(conf.get("spark.executor.instances", "1") or 1)
        cores = instances * int(conf.get("spark.executor.cores", "1") or 1)
    return max(cores // cpus, 1)


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
    """Return the threads that a replica may use, `spark.task.cpus`, so that tasks share cores."""
    return int(spark.conf.get("spark.task.cpus", "1") or 1)


def has_speculation(spark: SparkSession) -> bool:
    """Return whether Spark starts second tasks beside slow ones: `spark.speculation`."""
    return str(spark.sparkContext.getConf().get("spark.speculation", "false")).lower() == "true"
