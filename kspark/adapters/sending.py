"""Bring slices of arrays from the driver to the executors, and read them there.

Over Spark Connect, each row of a DataFrame has a pickled piece of a slice. Spark sends a DataFrame
in several messages if it is large, but keeps it on the server until the session is stopped. The
rows are sorted into as many ranges of the slices' numbers as there are slices. Spark finds the
bounds of the ranges in a sample of the rows, which has all of them, as they are so few; each slice
has the same number of rows, so that each range is one slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
from pyspark.serializers import CPickleSerializer
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from kspark.adapters.base import CHUNK_BYTES, Task, run_task
from kspark.adapters.chunks import conform_chunk
from kspark.cluster.bootstrap import ship, values_in_turn
from kspark.cluster.connection import reaching
from kspark.cluster.engine import MANY_ROWS
from kspark.cluster.pieces import frame_of, size_limit
from kspark.cluster.remote import is_connect, map_frame
from kspark.cluster.resources import refuse_over_connect
from kspark.cluster.results import Results
from kspark.errors import Described, invalid
from kspark.shards import Chunk, InputSpec, Shard, ShardHandle

Cast = Callable[[Chunk, int], Chunk]
"""Casts rows to the types in which they are sent: (rows, number of the first row)."""


def num_slots(spark: SparkSession) -> int:
    """Return Spark's default number of partitions. Over Spark Connect, a small job counts them."""
    if not is_connect(spark):
        return spark.sparkContext.defaultParallelism
    refuse_over_connect()
    places = spark.range(MANY_ROWS).select(F.spark_partition_id().alias("partition"))
    with reaching(spark):
        return places.distinct().count()


def sent(
    spark: SparkSession,
    slices: Sequence[tuple[int, Chunk]],
    cast: Cast,
    spec: InputSpec,
    task: Task,
) -> Results:
    """Run a task over slices of arrays, over Spark Connect.

    Args:
        spark: `SparkSession`.
        slices: Sequence of slices: the number of the first row, and the rows.
        cast: `Cast`.
        spec: `InputSpec`.
        task: `Task`.

    Raises:
        ValueError: If the arrays are larger than a DataFrame that Spark sends.
    """
    counts = [rows.num_examples for _, rows in slices]
    largest = max(rows.nbytes for _, rows in slices)
    serializer = CPickleSerializer()
    parts = max(1, min(-(-largest // CHUNK_BYTES), *counts))

    def rows_of(index: int, start: int, rows: Chunk) -> Iterator[tuple[int, int, bytes]]:
        for part in range(parts):
            first, last = (rows.num_examples * end // parts for end in (part, part + 1))
            piece = cast(rows.rows(first, last), start + first)
            yield index, part, serializer.dumps(piece)

    sent_rows = (rows_of(index, *one) for index, one in enumerate(slices))
    frame = frame_of(spark, within(size_limit(spark), chain.from_iterable(sent_rows)))
    ordered = frame.repartitionByRange(len(slices), "owner").sortWithinPartitions("owner", "number")
    return map_frame(ordered.select("piece"), partial(ship(read_pieces, spec), task))


def within(limit: int, rows: Iterator[tuple[int, int, bytes]]) -> Iterator[tuple[int, int, bytes]]:
    """Yield the rows of a DataFrame as long as their pieces are within a limit.

    The pieces are counted as they are sent: the memory of text and of other objects is not known,
    and numbers are sent in the types of the model.

    Raises:
        ValueError: If they have more bytes in all.
    """
    nbytes = 0
    for row in rows:
        nbytes += len(row[-1])
        if nbytes > limit:
            rule = (
                f"arrays of at most {limit:,} bytes in all over Spark Connect, or paths of files "
                "that the workers can read"
            )
            raise invalid("x", rule, Described(f"{nbytes:,} bytes or more"))
        yield row


def read_pieces(
    spec: InputSpec, task: Task, index: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[Any]:
    """Run a task over a slice whose pieces are rows. Runs on an executor."""

    def read(source: Iterator[pa.RecordBatch]) -> Iterator[Chunk]:
        first, serializer = 0, CPickleSerializer()
        for piece in (value for batch in source for value in batch.column(0)):
            # Safe: the driver's own process wrote these bytes, and Spark delivered them.
            chunk = serializer.loads(piece.as_py())
            yield conform_chunk(chunk, spec, index, first)
            first += chunk.num_examples

    return run_task(task, index, batches, read)


def read_files(
    spec: InputSpec, task: Task, index: int, documents: Iterator[bytes]
) -> Iterator[Any]:
    """Run a task over slices in files. Runs on the driver's host."""

    def read(source: Iterator[bytes]) -> Iterator[Chunk]:
        for document in source:
            shard, first = Shard.open(ShardHandle.from_json(document)), 0
            for window in shard.windows(1, window_bytes=CHUNK_BYTES):
                chunk = Chunk(window.x, window.y, window.sample_weight)
                yield conform_chunk(chunk, spec, index, first)
                first += chunk.num_examples

    return run_task(task, index, documents, read)


def read_broadcasts(spec: InputSpec, index: int, *given: Any) -> Iterator[Any]:
    """Run a task over a slice on an executor. Given are broadcasts, the task, and items."""
    *pieces, task, items = given

    def read(source: Iterator[int]) -> Iterator[Chunk]:
        first = 0
        for chunk in chain.from_iterable(values_in_turn(pieces)):
            yield conform_chunk(chunk, spec, index, first)
            first += chunk.num_examples

    return run_task(task, index, items, read)
