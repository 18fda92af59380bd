"""What tasks over data yield: as an RDD, or over a DataFrame of a classic session.

Those of a DataFrame are unpacked where they are used and not a moment earlier.

`mapInArrow` gives rows of bytes. An RDD that unpacks them would put one more
Python worker behind each task, beside the one that a DataFrame made of Python
objects has in front of it. Spark hands such workers out in turn, so that a
model would be built in twice as many of them as there are slots, and every
second round of training would find a cold one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
from pyspark import RDD, StorageLevel, TaskContext
from pyspark.serializers import CPickleSerializer
from pyspark.sql import Row

from kspark.cluster.bootstrap import ship

SCHEMA = "result binary"

PartitionFunction = Callable[[int, Any], Iterator[Any]]


class Collectable(Protocol):
    """What a job runs for."""

    def collect(self) -> list[Any]:
        """Run the tasks. The results in the order of the partitions."""
        ...


class Results(Collectable, Protocol):
    """What tasks yield, lazily; the part of an RDD that kspark uses, and named as there."""

    def persist(self, storageLevel: StorageLevel = ...) -> Results:
        """Keep the results once they are computed."""
        ...

    def unpersist(self, blocking: bool = False) -> Results:
        """Keep them no longer."""
        ...

    def mapPartitionsWithIndex(self, f: PartitionFunction) -> Results:
        """What a function of (partition, its results) yields for every partition."""
        ...


class PackedResults:
    """Results of tasks over a DataFrame of a classic session.

    Args:
        rows: RDD of rows of one packed result each.
    """

    def __init__(self, rows: RDD[Row]) -> None:
        self._rows = rows

    def getNumPartitions(self) -> int:
        """As of an RDD."""
        return self._rows.getNumPartitions()

    def persist(self, storageLevel: StorageLevel = StorageLevel.MEMORY_ONLY) -> PackedResults:
        """As of an RDD: the packed results are kept."""
        self._rows.persist(storageLevel)
        return self

    def unpersist(self, blocking: bool = False) -> PackedResults:
        """As of an RDD."""
        self._rows.unpersist(blocking)
        return self

    def mapPartitionsWithIndex(self, f: PartitionFunction) -> RDD[Any]:
        """As of an RDD; unpacking happens in the Python worker that runs `f`."""
        return self._rows.mapPartitionsWithIndex(partial(ship(map_unpacked), f))

    def collect(self) -> list[Any]:
        """As of an RDD; unpacking happens on the driver."""
        return list(unpacked(iter(self._rows.collect())))


def packed(result: Any) -> pa.RecordBatch:
    """A result as Spark would pickle it as an element of an RDD, in a batch of one row."""
    column = pa.array([CPickleSerializer().dumps(result)], pa.binary())
    return pa.RecordBatch.from_arrays([column], names=["result"])


def pack_results(f: PartitionFunction, batches: Iterator[pa.RecordBatch]) -> Iterator[Any]:
    """Run a function over the batches of one partition."""
    for result in f(partition(), batches):
        yield packed(result)


def partition() -> int:
    """Number of the partition that the running task works on; 0 outside of Spark."""
    context = TaskContext.get()
    return context.partitionId() if context is not None else 0


def unpacked(rows: Iterator[Row]) -> Iterator[Any]:
    """The inverse of `packed`, of results that this job's own Python workers packed."""
    serializer = CPickleSerializer()
    for row in rows:
        yield serializer.loads(bytes(row[0]))


def map_unpacked(f: PartitionFunction, index: int, rows: Iterator[Row]) -> Iterator[Any]:
    """Run a function over the results of one partition."""
    return f(index, unpacked(rows))
