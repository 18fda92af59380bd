"""Tasks over DataFrames, whichever kind of session these belong to.

Over Spark Connect there are no RDDs. Results are rows there, of a DataFrame again, and what
is persisted has a name at the server, a temporary view: a DataFrame alone is no more than a
recipe, which the server reads anew for every job. Random numbers in it or files that are
added to its folder would make it another one each time, and what is kept would not be found.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.serializers import CPickleSerializer
from pyspark.sql import DataFrame, Row, SparkSession

from kspark.cluster.bootstrap import ship
from kspark.cluster.results import SCHEMA, PackedResults, PartitionFunction, pack_results, partition

PIECES = "piece binary, last boolean"
PIECE_BYTES = 16 << 20
"""Of a result in one row: a message of Spark Connect holds 128 MiB."""

COALESCES = "spark.sql.optimizer.canChangeCachedPlanOutputPartitioning"
"""Whether Spark merges the small partitions of a shuffle in what is persisted, as elsewhere."""

_settings = Lock()


def is_connect(spark: SparkSession) -> bool:
    """Whether a session is one of Spark Connect."""
    return getattr(spark, "sparkContext", None) is None


def map_frame(frame: DataFrame, f: PartitionFunction) -> PackedResults | RemoteResults:
    """What a function of (partition, record batches) yields for every partition, lazily.

    Args:
        frame: DataFrame.
        f: A function that `kspark.cluster.bootstrap.ship` made, or a `partial` of one.
    """
    if is_connect(frame.sparkSession):
        return RemoteResults(frame.mapInArrow(partial(ship(cut_results), f), PIECES))
    return PackedResults(frame.mapInArrow(partial(ship(pack_results), f), SCHEMA).rdd)


class RemoteResults:
    """Results of tasks over Spark Connect; see `kspark.cluster.results.Results`.

    Args:
        frame: DataFrame of results in pieces.
    """

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self._view: str | None = None

    def getNumPartitions(self) -> None:
        """Nobody knows over Spark Connect."""

    def persist(self, storageLevel: StorageLevel = StorageLevel.MEMORY_ONLY) -> RemoteResults:
        """See `Results.persist`."""
        view, spark = f"kspark_{uuid.uuid4().hex}", self._frame.sparkSession
        with ExitStack() as undo:
            self._frame.createTempView(view)
            undo.callback(spark.catalog.dropTempView, view)
            with setting(spark, COALESCES, "true"):
                self._frame = spark.table(view).persist(storageLevel)
            undo.pop_all()
        self._view = view
        return self

    def unpersist(self, blocking: bool = False) -> RemoteResults:
        """See `Results.unpersist`. Persisted results cannot be used any more."""
        if self._view is not None:
            self._frame.unpersist(blocking)
            self._frame.sparkSession.catalog.dropTempView(self._view)
            self._view = None
        return self

    def mapPartitionsWithIndex(self, f: PartitionFunction) -> RemoteResults:
        """See `Results.mapPartitionsWithIndex`."""
        return RemoteResults(self._frame.mapInArrow(partial(ship(map_pieces), f), PIECES))

    def collect(self) -> list[Any]:
        """See `Results.collect`."""
        return list(joined(self._frame.collect()))


@contextmanager
def setting(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Change a setting of a session for a moment; one thread at a time."""
    with _settings:
        before = spark.conf.get(name, None)
        spark.conf.set(name, value)
        try:
            yield
        finally:
            if before is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, before)


def cut(result: Any) -> Iterator[pa.RecordBatch]:
    """A result in pieces of a row each, the last of which says so."""
    pickled = CPickleSerializer().dumps(result)
    for start in range(0, len(pickled), PIECE_BYTES):
        stop = start + PIECE_BYTES
        piece = pa.array([pickled[start:stop]], pa.binary())
        last = pa.array([stop >= len(pickled)])
        yield pa.RecordBatch.from_arrays([piece, last], names=["piece", "last"])


def joined(rows: Iterable[Row | tuple[bytes, bool]]) -> Iterator[Any]:
    """The inverse of `cut`, of results that this session's own Python workers cut."""
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
    """Run a function over the batches of one partition."""
    for result in f(partition(), batches):
        yield from cut(result)


def map_pieces(f: PartitionFunction, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Run a function over the results of one partition."""
    rows = (row for batch in batches for row in zip(*batch.to_pydict().values(), strict=True))
    for result in f(partition(), joined(rows)):
        yield from cut(result)
