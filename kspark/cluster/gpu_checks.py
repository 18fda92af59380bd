"""Find settings with which tasks share GPUs that they should not share, or leave some idle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from pyspark.sql import SparkSession

from kspark.cluster.accelerators import GPU
from kspark.cluster.environment import WorkerEnvironment
from kspark.cluster.remote import is_connect
from kspark.cluster.resources import executor_amount, task_amount
from kspark.cluster.slots import cores_of_master, num_executors, tasks_per_gpu, threads_per_task
from kspark.errors import ClusterError

AMOUNT = f"spark.task.resource.{GPU}.amount"


def check_gpu_settings(spark: SparkSession) -> None:
    """Refuse GPUs for the tasks of a session that has none to give, and would wait for ever.

    Raises:
        ClusterError: If tasks take GPUs, and the session runs in the driver's process.
    """
    if is_connect(spark):
        return
    master = str(spark.sparkContext.master)
    if master.startswith("local") and not master.startswith("local-cluster"):
        if task_amount(spark, GPU):
            raise ClusterError(
                f"Tasks take GPUs, but Spark has none to give with the master {master}, and would "
                f"wait for ever. Leave {AMOUNT} and `resources` out: the workers of such a "
                "session see all GPUs of this machine. Or use local_session(executors=1, ...), in "
                "which Spark counts GPUs."
            )


def shared_gpus(answers: Iterable[WorkerEnvironment]) -> Iterator[str]:
    """Describe each GPU that several executors of a host give to their tasks."""
    owners: dict[tuple[str, str], set[int]] = {}
    for answer in answers:
        for gpu in answer.gpus:
            owners.setdefault((answer.host, gpu), set()).add(answer.parent)
    for (host, gpu), executors in sorted(owners.items()):
        if len(executors) > 1:
            yield (
                f"{len(executors)} executors on host {host} give GPU {gpu} to their tasks, which "
                "share its memory and its time. Let spark.worker.resource.gpu.discoveryScript or "
                "spark.executor.resource.gpu.discoveryScript name other GPUs to each executor."
            )


def idle_gpus(spark: SparkSession) -> Iterator[str]:
    """Describe the GPUs of an executor that its tasks leave idle, as far as settings tell."""
    if is_connect(spark) or not (amount := task_amount(spark, GPU)):
        return
    cores = cores_of_master(str(spark.sparkContext.master)) or spark.sparkContext.defaultParallelism
    executors, gpus = num_executors(spark, cores), int(executor_amount(spark, GPU))
    if not executors:
        return
    tasks = cores // executors // threads_per_task(spark)
    if amount >= 1:
        used = tasks * int(amount)
        remedy = "Give each executor fewer GPUs, or more cores."
    else:
        used = -(-tasks // tasks_per_gpu(amount))
        higher = spreading(tasks, gpus)
        helps = tasks_per_gpu(higher) < tasks_per_gpu(amount)
        remedy = (
            "Spark gives the first GPU to as many tasks as may share one. "
            + (f"Raise the amount to {higher:g}, or give" if helps else "Give")
            + " each executor fewer GPUs, or more cores."
        )
    if 0 < used < gpus:
        yield (
            f"Each executor has {gpus} GPUs, but its tasks, {tasks} at a time, use {used}: "
            f"{AMOUNT} is {amount:g}. {remedy}"
        )


def spreading(tasks: int, gpus: int) -> float:
    """Return the amount with which tasks share all GPUs of an executor, and all find a place.

    Args:
        tasks: Integer, how many run at a time.
        gpus: Integer, at least 1.

    Returns:
        Float, 1 divided by an integer, rounded down: Spark rounds the tasks per GPU down, too.
    """
    per_gpu = max(1, -(-tasks // max(gpus, 1)))
    return math.floor(1e6 / per_gpu) / 1e6
