"""Run tasks over a DataFrame of either kind of session.

Spark Connect has no RDDs, so results there are rows of another DataFrame. Persisted results are
registered as a temporary view on the server. A DataFrame of the client is only a plan, which the
server analyzes again for every job. If the plan changes between two jobs (random numbers in it,
new files in its folder), the server does not recognize the persisted data.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.serializers import CPickleSerializer
from pyspark.sql import DataFrame, Row, SparkSession

from kspark.cluster.bootstrap import ship
from kspark.cluster.connection import reaching, tidy
from kspark.cluster.results import SCHEMA, PackedResults, PartitionFunction, pack_results, partition

PIECES = "piece binary, last boolean"
PIECE_BYTES = 16 << 20
"""Bytes of a result per row. A message of Spark Connect holds 128 MiB at most."""

COALESCES = "spark.sql.optimizer.canChangeCachedPlanOutputPartitioning"
"""Spark's setting to merge small shuffle partitions also in DataFrames that are persisted."""

_settings = Lock()


def is_connect(spark: SparkSession) -> bool:
    """Whether a session is a Spark Connect session."""
    return getattr(spark, "sparkContext", None) is None


def map_frame(frame: DataFrame, f: PartitionFunction) -> PackedResults | RemoteResults:
    """Apply a function to every partition of a DataFrame, lazily.

    Args:
        frame: DataFrame.
        f: Function of (partition, record batches) that yields results; made by
            `kspark.cluster.bootstrap.ship`, or a `partial` of such a function.
    """
    if is_connect(frame.sparkSession):
        return RemoteResults(mapped(frame, partial(ship(cut_results), f)))
    return PackedResults(frame.mapInArrow(partial(ship(pack_results), f), SCHEMA).rdd)


class RemoteResults:
    """Results of tasks over Spark Connect, with the methods of `kspark.cluster.results.Results`.

    Args:
        frame: DataFrame of pickled results, cut into pieces of one row each.
    """

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self._view: str | None = None

    def getNumPartitions(self) -> None:
        """Return `None`: Spark Connect does not expose the number of partitions."""

    def persist(self, storageLevel: StorageLevel = StorageLevel.MEMORY_ONLY) -> RemoteResults:
        """Persist the results as a temporary view on the server."""
        view, spark = f"kspark_{uuid.uuid4().hex}", self._frame.sparkSession
        with reaching(spark), ExitStack() as undo:
            self._frame.createTempView(view)
            undo.callback(tidy, spark, partial(spark.catalog.dropTempView, view))
            with setting(spark, COALESCES, "true"):
                self._frame = spark.table(view).persist(storageLevel)
            undo.pop_all()
        self._view = view
        return self

    def unpersist(self, blocking: bool = False) -> RemoteResults:
        """Drop the temporary view. Results that were persisted cannot be used afterwards."""
        if self._view is not None:
            spark, view, self._view = self._frame.sparkSession, self._view, None
            tidy(
                spark,
                partial(self._frame.unpersist, blocking),
                partial(spark.catalog.dropTempView, view),
            )
        return self

    def mapPartitionsWithIndex(self, f: PartitionFunction) -> RemoteResults:
        """Apply a function of (partition, results) to every partition."""
        return RemoteResults(mapped(self._frame, partial(ship(map_pieces), f)))

    def collect(self) -> list[Any]:
        """Collect the results."""
        return list(joined(self._frame.collect()))


def mapped(frame: DataFrame, f: Callable[..., Any]) -> DataFrame:
    """Map the partitions of a DataFrame to pieces. The server checks the schema at once."""
    with reaching(frame.sparkSession):
        return frame.mapInArrow(f, PIECES)


@contextmanager
def setting(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Change a setting of a session inside the block; other threads wait for its end."""
    with _settings:
        with reaching(spark):
            before = spark.conf.get(name, None)
            spark.conf.set(name, value)
        if before is None:
            restore = partial(spark.conf.unset, name)
        else:
            restore = partial(spark.conf.set, name, before)
        try:
            yield
        finally:
            tidy(spark, restore)


def cut(result: Any) -> Iterator[pa.RecordBatch]:
    """Pickle a result and cut it into pieces of one row each. The last piece is marked."""
    pickled = CPickleSerializer().dumps(result)
    for start in range(0, len(pickled), PIECE_BYTES):
        stop = start + PIECE_BYTES
        piece = pa.array([pickled[start:stop]], pa.binary())
        last = pa.array([stop >= len(pickled)])
        yield pa.RecordBatch.from_arrays([piece, last], names=["piece", "last"])


def joined(rows: Iterable[Row | tuple[bytes, bool]]) -> Iterator[Any]:
    """Join pieces to results, the inverse of `cut`.

    Unpickling is safe: this session's own Python workers wrote the pieces.
    """
    serializer = CPickleSerializer()
    pieces: list[bytes] = []
    for piece, last in rows:
        pieces.append(bytes(piece))
        if last:
            yield serializer.loads(b"".join(pieces))
            pieces = []


def cut_results(
    f: PartitionFunction, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Apply a function to the batches of one partition, and cut what it yields."""
    for result in f(partition(), batches):
        yield from cut(result)


def map_pieces(f: PartitionFunction, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Apply a function to the results of one partition, and cut what it yields."""
    rows = (row for batch in batches for row in zip(*batch.to_pydict().values(), strict=True))
    for result in f(partition(), joined(rows)):
        yield from cut(result)
