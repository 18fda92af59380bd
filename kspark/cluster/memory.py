"""Estimate the memory of Python workers that train a model, and compare it with what they get.

Spark's Python workers are outside of the JVM's heap. On YARN and Kubernetes, an executor whose
workers take more than `spark.executor.memoryOverhead` is killed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster import daemon
from kspark.cluster.backend import LIBRARIES
from kspark.cluster.slot_wait import cores_per_executor, tasks_per_executor

MEBIBYTE = 1 << 20

BACKENDS = {"tensorflow": 330, "jax": 290, "torch": 380}
"""Memory in MiB of a process that has trained a small model, which it shares with no other one.
Measured with TensorFlow 2.21, JAX 0.10 and PyTorch 2.13 on a CPU."""

OF_A_FORK = 100
"""The part of `BACKENDS` that each worker of kspark's daemon has for itself. All share the rest."""

COPIES = 9
"""How often the weights are in a worker's memory at most: variables, gradients, the vector that it
received, its delta, and what these are made from. Measured in rounds with SGD."""

COPIES_OF_STATE = 4
"""How often the optimizer's state is: among others the variables, and what is kept for the next
epoch. Measured in rounds with Adam."""

WINDOWS = 128
"""Memory in MiB of the rows that a worker has read; see `kspark.shards.reading`."""

OF_JAVA = 256
"""Memory in MiB that the JVM of an executor needs beside its heap."""

CONTAINERS = ("yarn", "k8s")
"""How the masters begin that limit the memory of an executor."""

PYSPARK_MEMORY = "spark.executor.pyspark.memory"
"""Limits the addresses of a worker (`RLIMIT_AS`), most of which take no memory."""

ADDRESSES = 3 * 1024
"""Addresses in MiB that a worker needs beside its memory. Measured with TensorFlow 2.21, which
aborts with 2,048 MiB in all."""

UNITS = {"": 1.0, "b": 2.0**-20, "k": 2.0**-10, "m": 1.0, "g": 2.0**10, "t": 2.0**20, "p": 2.0**30}


@dataclass(frozen=True)
class WorkerMemory:
    """The memory that a Python worker needs to train a model, in MiB.

    The outputs of layers are not in it: they depend on the rows of a batch.

    Attributes:
        backend: String, the Keras backend.
        weights: Float, all copies of the weights.
        optimizer: Float, all copies of the optimizer's state.
        warm: Boolean, whether workers are forked from kspark's daemon.
    """

    backend: str
    weights: float = 0.0
    optimizer: float = 0.0
    warm: bool = False

    @classmethod
    def of(cls, spark: SparkSession, backend: str, model: Any = None) -> WorkerMemory:
        """Estimate the memory for a model.

        Args:
            spark: `SparkSession`.
            backend: String, the Keras backend.
            model: Compiled `keras.Model`, or `None`: without weights.
        """
        warm = spark.conf.get("spark.python.daemon.module", "") in daemon.NAMES
        if model is None:
            return cls(backend, warm=warm)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            optimizer.build(model.trainable_variables)  # as a fit does
        state = [] if optimizer is None else optimizer.variables
        weights, kept = (sum(map(nbytes, found)) / MEBIBYTE for found in (model.weights, state))
        return cls(backend, COPIES * weights, COPIES_OF_STATE * kept, warm)

    @property
    def of_backend(self) -> float:
        """What the backend takes in a process that shares nothing."""
        return BACKENDS.get(self.backend, max(BACKENDS.values()))

    @property
    def one(self) -> float:
        """The memory of one worker."""
        return self.of_backend + self.weights + self.optimizer + WINDOWS

    def of_executor(self, tasks: int) -> float:
        """Return what an executor needs beside the heap of its JVM, if it runs some tasks."""
        shared = self.of_backend - OF_A_FORK if self.warm else 0.0
        return OF_JAVA + shared + tasks * (self.one - shared)

    def __str__(self) -> str:
        parts = {
            LIBRARIES.get(self.backend, self.backend): self.of_backend,
            "the weights and their copies": self.weights,
            "the optimizer's state": self.optimizer,
            "the rows that it has read": WINDOWS,
        }
        shown = ", ".join(f"{amount:,.0f} for {name}" for name, amount in parts.items() if amount)
        return f"about {self.one:,.0f} MiB ({shown}), and the outputs of the layers in addition"


def nbytes(variable: Any) -> int:
    """Return the size of a variable of Keras in bytes."""
    bits = re.search(r"\d+", str(variable.dtype))  # as in bfloat16
    return math.prod(variable.shape) * (int(bits[0]) // 8 if bits else 1)


def memory_problems(spark: SparkSession, memory: WorkerMemory) -> Iterator[str]:
    """Describe why the workers of a classic session do not get the memory that they need."""
    yield from problems_of_limit(spark, memory)
    if not str(spark.sparkContext.master).startswith(CONTAINERS):
        return
    for_python = setting_in_mib(spark, PYSPARK_MEMORY) or 0.0
    tasks, given = tasks_per_executor(spark) or 1, overhead_of(spark) + for_python
    needed = memory.of_executor(tasks)
    if needed > given:
        yield (
            f"A Python worker needs {memory}. With {tasks} at a time, an executor needs "
            f"{needed:,.0f} MiB beside the heap of its JVM, and gets {given:,.0f} MiB. Set "
            f"spark.executor.memoryOverhead to {rounded(needed - for_python)}m or more"
            f"{f' (or raise {PYSPARK_MEMORY})' if for_python else ''}, or run fewer tasks at a "
            "time: lower spark.executor.cores, or raise spark.task.cpus."
        )


def problems_of_limit(spark: SparkSession, memory: WorkerMemory) -> Iterator[str]:
    """Say if `spark.executor.pyspark.memory` does not suffice. Spark divides it by the cores."""
    given, cores = setting_in_mib(spark, PYSPARK_MEMORY), cores_per_executor(spark) or 1
    needed = memory.one + ADDRESSES
    if given is not None and given / cores < needed:
        yield (
            f"{PYSPARK_MEMORY} limits the addresses of a Python worker, not its memory, and "
            "TensorFlow alone needs about 3 GB of them. A worker gets "
            f"{given / cores:,.0f} MiB of addresses, the setting's value divided by "
            f"spark.executor.cores, and needs {needed:,.0f} MiB: 3 GiB, and {memory}. Set "
            f"{PYSPARK_MEMORY} to {rounded(needed * cores)}m or more, or leave it out."
        )


def overhead_of(spark: SparkSession) -> float:
    """Return `spark.executor.memoryOverhead` in MiB, or its default."""
    set_by_user = setting_in_mib(spark, "spark.executor.memoryOverhead")
    if set_by_user is not None:
        return set_by_user
    names = ("spark.executor.memoryOverheadFactor", "spark.kubernetes.memoryOverheadFactor")
    factor = next((found for name in names if (found := spark.conf.get(name, None))), "0.1")
    least = setting_in_mib(spark, "spark.executor.minMemoryOverhead")
    heap = setting_in_mib(spark, "spark.executor.memory") or 1024.0
    return max(384.0 if least is None else least, float(factor) * heap)


def setting_in_mib(spark: SparkSession, name: str) -> float | None:
    """Return an amount of memory among Spark's settings in MiB, `None` if it is not set.

    A number without a unit is in MiB.
    """
    found = re.fullmatch(r"\s*(\d+)\s*([bkmgtp]?)b?\s*", str(spark.conf.get(name, None)).lower())
    return None if found is None else int(found[1]) * UNITS[found[2]]


def rounded(mebibytes: float) -> int:
    """Round an amount of memory up to a multiple of 256 MiB."""
    return -(-math.ceil(mebibytes) // 256) * 256
