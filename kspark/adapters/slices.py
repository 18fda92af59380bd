"""Make RDDs and DataFrames from sequences on the driver.

Spark sends the elements of `parallelize` inside the tasks, of which the driver's JVM keeps
several copies in memory. So large data is broadcast, one slice at a time. Spark deletes the
broadcasts after the RDD or DataFrame was garbage collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DoubleType, StructField, StructType, UserDefinedType

from kspark.adapters.arrays import slice_bounds
from kspark.adapters.base import CHUNK_BYTES
from kspark.classic import RDD, Broadcast, SparkContext
from kspark.cluster.bootstrap import ship

Slice = tuple[Any, Any]

INDICES = pa.list_(pa.field("element", pa.int32(), nullable=False))
VALUES = pa.list_(pa.field("element", pa.float64(), nullable=False))


def slices_of(context: SparkContext, features: Any, labels: Any) -> list[Slice]:
    """Divide rows into consecutive, near-equal slices, one per task slot of the cluster."""
    count = max(1, min(context.defaultParallelism, len(labels)))
    bounds = slice_bounds(len(labels), count)
    pairs = zip(bounds, bounds[1:], strict=False)
    return [(features[start:stop], labels[start:stop]) for start, stop in pairs]


def rows_rdd(
    context: SparkContext, features: Any, labels: Any, rows: Callable[[Any, Any], Iterable[Any]]
) -> RDD[Any]:
    """Make an RDD of the rows that `rows(features, labels)` returns for each slice.

    Args:
        context: `SparkContext`.
        features: Array or sequence of rows.
        labels: Array or sequence of as many labels.
        rows: Module-level function of kspark.
    """
    slices = slices_of(context, features, labels)
    if getattr(features, "nbytes", 0) <= CHUNK_BYTES:
        return context.parallelize(slices, len(slices)).mapPartitions(ship(direct_rows, rows))
    broadcasts = [context.broadcast(part) for part in slices]
    run = partial(ship(broadcast_rows, rows), broadcasts)
    return context.parallelize(range(len(slices)), len(slices)).mapPartitions(run)


def direct_rows(
    rows: Callable[[Any, Any], Iterable[Any]], slices: Iterator[Slice]
) -> Iterator[Any]:
    """Yield the rows of the slices in a partition."""
    for features, labels in slices:
        yield from rows(features, labels)


def broadcast_rows(
    rows: Callable[[Any, Any], Iterable[Any]],
    broadcasts: Sequence[Broadcast[Slice]],
    places: Iterator[int],
) -> Iterator[Any]:
    """Yield the rows of the broadcast slices whose indices are in a partition."""
    return direct_rows(rows, (broadcasts[place].value for place in places))


def vector_frame(
    context: SparkContext, features: np.ndarray, labels: np.ndarray, vector: UserDefinedType
) -> DataFrame:
    """Make a DataFrame of vectors and labels, from Arrow record batches.

    Args:
        context: `SparkContext`.
        features: Matrix, one row per example.
        labels: Vector of one number per example.
        vector: Spark's type for the column of features.
    """
    spark = SparkSession.builder.getOrCreate()
    broadcasts = [context.broadcast(part) for part in slices_of(context, features, labels)]
    schema = StructType([StructField("features", vector), StructField("label", DoubleType())])
    places = spark.range(0, len(broadcasts), 1, len(broadcasts))
    return places.mapInArrow(partial(ship(vector_batches), broadcasts), schema)


def vector_batches(
    broadcasts: Sequence[Broadcast[Slice]], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield record batches of the broadcast slices whose indices are in `batches`."""
    for batch in batches:
        for place in batch.column(0).to_pylist():
            features, labels = broadcasts[place].value
            size = max(1, CHUNK_BYTES // max(1, 8 * features.shape[1]))
            for start in range(0, len(labels), size):
                part = slice(start, start + size)
                columns = [vector_array(features[part]), pa.array(labels[part], pa.float64())]
                yield pa.RecordBatch.from_arrays(columns, names=["features", "label"])


def vector_array(matrix: np.ndarray) -> pa.StructArray:
    """Convert the rows of a matrix to Arrow's structs for Spark's dense vectors."""
    count, width = matrix.shape
    flat = pa.array(np.ascontiguousarray(matrix, np.float64).reshape(-1))
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(width))
    return pa.StructArray.from_arrays(
        [
            pa.array(np.ones(count, np.int8)),
            pa.nulls(count, pa.int32()),
            pa.nulls(count, INDICES),
            pa.ListArray.from_arrays(offsets, flat, type=VALUES),
        ],
        fields=[
            pa.field("type", pa.int8(), nullable=False),
            pa.field("size", pa.int32()),
            pa.field("indices", INDICES),
            pa.field("values", VALUES),
        ],
    )
