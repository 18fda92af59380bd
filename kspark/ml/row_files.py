"""Files of stages as rows, where the driver has no file system in common with Spark.

Over Spark Connect, only the server reaches the paths that Spark writes. A file is written as a
folder of Parquet files there, whose rows have the pieces of the file. Sessions of both kinds read
it. So they do the plain files that a session with a JVM writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from kspark import temporary
from kspark.cluster.pieces import frame_of

PIECE_BYTES = 4 << 20


def clear(spark: SparkSession, path: str) -> None:
    """Delete what is at a path, and leave an empty folder there.

    Args:
        spark: `SparkSession`.
        path: String.
    """
    # Spark writes no file for a partitioned table without rows, but replaces what was there.
    nothing = spark.range(0).select(F.col("id").cast("string").alias("value"), F.lit(0).alias("p"))
    writer = nothing.write.mode("overwrite").option("partitionOverwriteMode", "static")
    writer.partitionBy("p").text(path)


@contextmanager
def writing(spark: SparkSession, path: str) -> Iterator[str]:
    """Provide the name of a local file to write, whose content is at `path` when the block ends.

    Args:
        spark: `SparkSession`.
        path: String, which must not exist.
    """
    with local_file(path) as local:
        yield str(local)
        frame_of(spark, pieces_of(local)).coalesce(1).write.parquet(path)


@contextmanager
def reading(spark: SparkSession, path: str, *, as_rows: bool) -> Iterator[str]:
    """Provide the name of a local file with the content of a file, until the block ends.

    Args:
        spark: `SparkSession`.
        path: String.
        as_rows: Boolean, whether `writing` wrote it.
    """
    rows = spark.read.parquet(path) if as_rows else cut(spark.read.format("binaryFile").load(path))
    with local_file(path) as local:
        with local.open("wb") as stream:
            for row in rows.orderBy("number").select("piece").toLocalIterator():
                stream.write(row.piece)
        yield str(local)


@contextmanager
def local_file(path: str) -> Iterator[Path]:
    """Provide a path of the same name in a folder that is removed when the block ends."""
    folder = temporary.Folder(temporary.SHARED)
    try:
        yield folder.path / Path(path).name
    finally:
        folder.remove()


def pieces_of(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield the pieces of a file, as `frame_of` takes them."""
    with file.open("rb") as stream:
        number = 0
        while piece := stream.read(PIECE_BYTES):
            yield 0, number, piece
            number += 1


def cut(file: DataFrame) -> DataFrame:
    """Cut a plain file, as Spark reads it, into pieces: a message of Spark Connect is limited."""
    numbers = F.sequence(F.lit(0), F.floor((F.col("length") - 1) / PIECE_BYTES).cast("int"))
    numbered = file.select("content", F.explode(numbers).alias("number"))
    start, length = F.col("number") * PIECE_BYTES + 1, F.lit(PIECE_BYTES)
    return numbered.select("number", F.substring("content", start, length).alias("piece"))
