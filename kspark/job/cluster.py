"""What the cluster offers: task slots, threads, and the workers' environments."""

from __future__ import annotations

import os
import re

from pyspark import RDD
from pyspark.sql import SparkSession

from kspark.bootstrap import ship
from kspark.errors import EnvironmentMismatchError
from kspark.job.spark_job import run_once
from kspark.worker.environment import WorkerEnvironment, environment, report_environment

_checked: set[tuple[str, str]] = set()


def task_slots(spark: SparkSession) -> int:
    """How many tasks run at the same time.

    `spark.default.parallelism` may say anything, so the master's own word and
    the executors' settings count first.
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


def every_host(spark: SparkSession) -> RDD[int]:
    """An RDD whose tasks reach every executor, as a rule: two for every slot."""
    count = 2 * task_slots(spark)
    return spark.sparkContext.parallelize(range(count), count)


def cores_of_master(master: str) -> int | None:
    """Cores that a local master's URL names, or `None` for a real cluster.

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
    """Threads a replica may use: `spark.task.cpus`, so that tasks do not fight for cores."""
    return int(spark.conf.get("spark.task.cpus", "1") or 1)


def check_cluster(spark: SparkSession, backend: str = "tensorflow") -> list[WorkerEnvironment]:
    """Look at the Python environment of the workers.

    Args:
        spark: `SparkSession`.
        backend: String, the Keras backend that must be there.

    Returns:
        List of `WorkerEnvironment`, one per worker that answered, without duplicates.

    Raises:
        EnvironmentMismatchError: If a worker runs another Python version, or lacks Keras,
            NumPy, PyArrow or the backend. Names the hosts and how to mend it.
    """
    slots = task_slots(spark)
    rows = spark.sparkContext.parallelize(range(slots), slots)
    task = ship(report_environment, backend)
    answers = run_once(spark, rows.mapPartitionsWithIndex(task), "kspark: check the workers")
    found = list({(a.host, a.executable): a for a in answers}.values())
    problems = [text for a in found for text in problems_of(a, backend)]
    if problems:
        raise EnvironmentMismatchError(
            "The workers cannot run this model:\n  "
            + "\n  ".join(problems)
            + "\nInstall what is missing on every host, or point PYSPARK_PYTHON (or "
            "spark.pyspark.python) to a Python that has it, or ship an environment with "
            "--archives (see `venv-pack` or `conda-pack`)."
        )
    return found


def problems_of(worker: WorkerEnvironment, backend: str) -> list[str]:
    """What keeps one worker from training, as sentences."""
    where = f"host {worker.host} ({worker.executable})"
    here = environment(backend)
    problems = [
        f"{where} has no {name}; the driver has {here.packages.get(name)}"
        for name, version in worker.packages.items()
        if version is None
    ]
    if worker.python.rsplit(".", 1)[0] != here.python.rsplit(".", 1)[0]:
        problems.append(f"{where} runs Python {worker.python}, the driver {here.python}")
    keras_there, keras_here = worker.packages.get("keras"), here.packages.get("keras")
    if keras_there and keras_here and keras_there.split(".")[:2] != keras_here.split(".")[:2]:
        problems.append(f"{where} has keras {keras_there}, the driver {keras_here}")
    return problems


def check_cluster_once(spark: SparkSession, backend: str) -> None:
    """`check_cluster`, the first time a Spark application is used with a backend."""
    key = (spark.sparkContext.applicationId, backend)
    if key not in _checked:
        check_cluster(spark, backend)
        _checked.add(key)
