"""The results of tasks, and how tasks over a classic session's DataFrame return them.

`mapInArrow` returns rows of bytes, each a pickled result. They are unpickled by the function
that uses them, not by an RDD in between. Such an RDD would add a Python worker behind each
task, besides the worker that a DataFrame made of Python objects has in front of it. Spark
assigns workers in turn, so that a model would be built in twice as many workers as there are
task slots, and every second round of training would run in a worker without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
from pyspark import StorageLevel, TaskContext
from pyspark.resource import ResourceProfile
from pyspark.serializers import CPickleSerializer
from pyspark.sql import Row

from kspark.classic import RDD
from kspark.cluster.bootstrap import ship

SCHEMA = "result binary"

PartitionFunction = Callable[[int, Any], Iterator[Any]]


class Collectable(Protocol):
    """Results that a job can collect."""

    def collect(self) -> list[Any]:
        """Run the tasks and return their results in the order of the partitions."""
        ...


class Results(Collectable, Protocol):
    """The results of tasks, computed lazily. Has the methods of an RDD that kspark uses."""

    def persist(self, storageLevel: StorageLevel = ...) -> Results:
        """Persist the results when they are computed."""
        ...

    def unpersist(self, blocking: bool = False) -> Results:
        """Remove persisted results."""
        ...

    def mapPartitionsWithIndex(self, f: PartitionFunction) -> Results:
        """Apply a function of (partition, results) to every partition."""
        ...


class PackedResults:
    """Results of tasks over a DataFrame of a classic session, with an RDD's methods.

    Args:
        rows: RDD of rows with one pickled result each.
    """

    def __init__(self, rows: RDD[Row]) -> None:
        self._rows = rows

    def getNumPartitions(self) -> int:
        """Return the number of partitions."""
        return self._rows.getNumPartitions()

    def persist(self, storageLevel: StorageLevel = StorageLevel.MEMORY_ONLY) -> PackedResults:
        """Persist the pickled results."""
        self._rows.persist(storageLevel)
        return self

    def unpersist(self, blocking: bool = False) -> PackedResults:
        """Remove persisted results."""
        self._rows.unpersist(blocking)
        return self

    def withResources(self, profile: ResourceProfile) -> PackedResults:
        """Let the tasks run on a resource profile."""
        self._rows.withResources(profile)
        return self

    def getResourceProfile(self) -> ResourceProfile | None:
        """Return the profile of `withResources`, or `None`."""
        return self._rows.getResourceProfile()

    def mapPartitionsWithIndex(self, f: PartitionFunction) -> RDD[Any]:
        """Apply a function to every partition, and unpickle in the worker that runs it."""
        return self._rows.mapPartitionsWithIndex(partial(ship(map_unpacked), f))

    def collect(self) -> list[Any]:
        """Collect the results and unpickle them on the driver."""
        return list(unpacked(iter(self._rows.collect())))


def pack_results(f: PartitionFunction, batches: Iterator[pa.RecordBatch]) -> Iterator[Any]:
    """Apply a function to the batches of one partition, and pickle what it yields."""
    for result in f(partition(), batches):
        column = pa.array([CPickleSerializer().dumps(result)], pa.binary())
        yield pa.RecordBatch.from_arrays([column], names=["result"])


def partition() -> int:
    """Return the number of the running task's partition, 0 outside of Spark."""
    context = TaskContext.get()
    return context.partitionId() if context is not None else 0


def unpacked(rows: Iterator[Row]) -> Iterator[Any]:
    """Unpickle results, the inverse of `pack_results`.

    This is safe: this job's own Python workers wrote the results.
    """
    serializer = CPickleSerializer()
    for row in rows:
        yield serializer.loads(bytes(row[0]))


def map_unpacked(f: PartitionFunction, index: int, rows: Iterator[Row]) -> Iterator[Any]:
    """Apply a function to the unpickled results of one partition."""
    return f(index, unpacked(rows))
