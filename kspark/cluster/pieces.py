"""Send many bytes from the driver to a server of Spark Connect, as the rows of a DataFrame."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from kspark import temporary
from kspark.cluster.connection import reaching

SCHEMA = pa.schema([("owner", pa.int32()), ("number", pa.int32()), ("piece", pa.binary())])

SIZE_LIMIT = "spark.sql.session.localRelationSizeLimit"
"""Spark's setting of the bytes of a DataFrame that a client may send (Spark 4.1 and later)."""

DEFAULT_LIMIT = 2 << 30
"""The limit before Spark 4.1, which holds such a DataFrame in one array of Java."""


def frame_of(spark: SparkSession, rows: Iterable[tuple[int, int, bytes]]) -> DataFrame:
    """Make a DataFrame of pieces, without holding all of them in this process' memory.

    Args:
        spark: `SparkSession`.
        rows: Iterable of tuples: the number of what the piece belongs to, the number of the piece,
            and its bytes.

    Returns:
        DataFrame with the columns `owner`, `number` and `piece`, in any order of rows.
    """
    folder = temporary.Folder(temporary.ARRAYS)
    try:
        path = str(folder.path / "pieces.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for row in rows:  # A batch each: PySpark sends several batches in a message, or one.
                pairs = zip(row, SCHEMA.types, strict=True)
                columns = [pa.array([value], kind) for value, kind in pairs]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        table = pa.ipc.open_file(pa.memory_map(path)).read_all()
    finally:
        folder.remove()  # What is mapped stays readable.
    with reaching(spark):
        return spark.createDataFrame(table)


def size_limit(spark: SparkSession) -> int:
    """Return how many bytes a DataFrame may have that the driver sends."""
    with reaching(spark):
        return int(spark.conf.get(SIZE_LIMIT, None) or DEFAULT_LIMIT)
