"""What tasks over a DataFrame yield, unpacked where it is used and not a moment earlier.

`mapInArrow` gives rows of bytes. An RDD that unpacks them would put one more
Python worker behind each task, beside the one that a DataFrame made of Python
objects has in front of it. Spark hands such workers out in turn, so that a
model would be built in twice as many of them as there are slots, and every
second round of training would find a cold one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark import RDD, StorageLevel
from pyspark.serializers import CPickleSerializer
from pyspark.sql import Row

from kspark.bootstrap import ship

SCHEMA = "result binary"

PartitionFunction = Callable[[int, Iterator[Any]], Iterator[Any]]


class PackedResults:
    """Results of `Examples.map_chunks` for a DataFrame; the part of an RDD that kspark uses.

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


Results = RDD[Any] | PackedResults


def packed(result: Any) -> pa.RecordBatch:
    """A result as Spark would pickle it as an element of an RDD, in a batch of one row."""
    column = pa.array([CPickleSerializer().dumps(result)], pa.binary())
    return pa.RecordBatch.from_arrays([column], names=["result"])


def unpacked(rows: Iterator[Row]) -> Iterator[Any]:
    """The inverse of `packed`, of results that this job's own Python workers packed."""
    serializer = CPickleSerializer()
    for row in rows:
        yield serializer.loads(bytes(row[0]))


def map_unpacked(f: PartitionFunction, index: int, rows: Iterator[Row]) -> Iterator[Any]:
    """Run a function over the results of one partition."""
    return f(index, unpacked(rows))
