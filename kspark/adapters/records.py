"""TFRecord files, whose records the tasks read, and not the driver."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql.types import DataType

from kspark.adapters.base import CHUNK_BYTES, CHUNK_ROWS, Columns, Examples, Task, run_task
from kspark.adapters.column_names import missing
from kspark.adapters.column_types import (
    check_types,
    summary_of_schema,
    text_labels_of_schema,
)
from kspark.adapters.conform import Place
from kspark.adapters.feeds import FramePlan, plan_frame
from kspark.adapters.file_paths import paths_of
from kspark.adapters.files import check_named_labels, map_numbers
from kspark.adapters.tensors import decoded
from kspark.cluster.bootstrap import ship
from kspark.cluster.remote import is_connect
from kspark.cluster.results import Results
from kspark.cluster.slots import threads_per_task
from kspark.errors import ClusterError
from kspark.files.listing import DataFile
from kspark.files.records import Feature, RecordFiles, Share, divide_records, list_records
from kspark.shards import Chunk, InputSpec, ShardHandle

TEXT_BYTES = 32 << 10
"""Bytes of a text, as far as its feature tells: it may be a document."""


@dataclass(frozen=True)
class RecordReader:
    """How the tasks read records.

    Attributes:
        plan: `FramePlan`.
        features: Tuple of `Feature` that the plan needs.
        compression: String, see `RecordFiles`.
        threads: Integer, threads of a task.
        limit: Integer, the most rows to read; `None` for all.
    """

    plan: FramePlan
    features: tuple[Feature, ...]
    compression: str
    threads: int
    limit: int | None = None

    @property
    def size(self) -> int:
        """Rows of a chunk."""
        row = sum(
            prod(one.shape)
            * (TEXT_BYTES if one.dtype == "string" else np.dtype(one.dtype).itemsize)
            for one in self.features
        )
        most = CHUNK_ROWS if self.limit is None else min(CHUNK_ROWS, self.limit)
        return max(1, min(most, CHUNK_BYTES // max(1, row)))

    def chunks(self, shares: Sequence[Share], partition: int) -> Iterator[Chunk]:
        """Yield the rows of files in their order.

        Raises:
            ValueError: If a record is damaged, or does not fit the model.
            ClusterError: If this host does not read a file.
        """
        first = 0
        for share in shares:
            for arrays in self._batches(share):
                chunk = self._chunk(arrays, partition, first)
                if self.limit is not None:
                    chunk = chunk.rows(0, self.limit - first)
                yield chunk
                first += chunk.num_examples
                if self.limit is not None and first >= self.limit:
                    return

    def _batches(self, share: Share) -> Iterator[dict[str, np.ndarray]]:
        try:
            from kspark.replica.backends.tensorflow_records import read_records
        except ImportError as error:
            raise ClusterError(
                f"Host {platform.node()} needs TensorFlow to read TFRecord files: install it "
                f"there, or write the rows to Parquet files. {error}"
            ) from error
        place = str(share.file.place)
        parts = (share.part, share.parts)
        return read_records(place, self.compression, self.features, self.size, *parts, self.threads)

    def _chunk(self, arrays: Mapping[str, np.ndarray], partition: int, first: int) -> Chunk:
        kept = {name for f in self.plan.x if f.spec.is_loose for name in f.names}

        def read(name: str, place: Place, is_loose: bool) -> np.ndarray:
            array = arrays[name]
            is_text = array.dtype == object and name not in kept  # TensorFlow has it as bytes.
            return decoded(array, place) if is_text else array

        return self.plan.assembled(read, partition, first)


class RecordExamples(Examples):
    """Rows of TFRecord files.

    Args:
        spark: `SparkSession`.
        files: Sequence of `DataFile`.
        reader: `RecordReader`.
        types: Mapping from each feature of the plan to Spark's type.
        num_partitions: Integer, number of shards. Each has consecutive rows.
    """

    def __init__(
        self,
        spark: SparkSession,
        files: Sequence[DataFile],
        reader: RecordReader,
        types: Mapping[str, DataType],
        num_partitions: int,
    ) -> None:
        self._spark = spark
        self._files = files
        self._reader = reader
        self._types = types
        self._num_partitions = num_partitions

    @property
    def num_partitions(self) -> int:
        """Number of shards."""
        return self._num_partitions

    @property
    def text_labels(self) -> dict[str, str]:
        """See `Examples.text_labels`."""
        return text_labels_of_schema(self._reader.plan, self._types)

    @property
    def summary(self) -> ShardHandle:
        """See `Examples.summary`. From the description: only the shapes of single numbers."""
        return summary_of_schema(self._reader.plan, self._types)

    def _repartition(self, num_partitions: int) -> RecordExamples:
        return self._with(self._reader, num_partitions)

    def first_rows(self, count: int) -> RecordExamples:
        """See `Examples.first_rows`. One worker reads them, as no file tells how many it has."""
        return self._with(replace(self._reader, limit=count), self._num_partitions)

    def _with(self, reader: RecordReader, num_partitions: int) -> RecordExamples:
        return RecordExamples(self._spark, self._files, reader, self._types, num_partitions)

    def map_chunks(self, task: Task) -> Results:
        """See `Examples.map_chunks`."""
        if self._reader.limit is None:
            shards = divide_records(self._files, self._num_partitions)
        else:
            shards = [tuple(map(Share, self._files)), *[()] * (self._num_partitions - 1)]
        shipped = ship(read_shards, self._reader, shards)
        return map_numbers(self._spark, len(shards), partial(shipped, task))


def adapt_records(
    spark: SparkSession,
    x: RecordFiles,
    y: Any,
    sample_weight: Any,
    spec: InputSpec,
    columns: Columns,
) -> RecordExamples:
    """Make examples from TFRecord files.

    Raises:
        ValueError: If a feature is missing or of a type that the model does not take, the labels
            are not named, or `y` or `sample_weight` is set.
        OSError: If there are no files.
    """
    check_named_labels(y, sample_weight, spec, columns)
    plan = plan_frame(columns, spec)
    known = {feature.name: feature for feature in x.features}
    for name, argument in plan.arguments.items():
        if name not in known:
            raise missing(name, list(known), argument)
    features = tuple(known[name] for name in plan.names)
    types = {feature.name: feature.kind for feature in features}
    check_types(plan, types)
    files = list_records(paths_of(spark, x.paths))
    reader = RecordReader(plan, features, x.compression, threads_per_task(spark))
    slots = len(files) if is_connect(spark) else spark.sparkContext.defaultParallelism
    return RecordExamples(spark, files, reader, types, max(1, slots))


def first_features_of_records(files: RecordFiles, plan: FramePlan) -> list[np.ndarray]:
    """Return features of the shapes in the description, without reading a record."""
    known = {feature.name: feature for feature in files.features}

    def read(name: str, place: Place, is_loose: bool) -> np.ndarray:
        if name not in known:
            raise missing(name, list(known), "features_col")
        feature = known[name]
        dtype = object if feature.dtype == "string" else feature.dtype
        return np.full((1, *feature.shape), "" if dtype is object else 0, dtype)

    return plan.assembled(read, None, 0).x


def read_shards(
    reader: RecordReader,
    shards: Sequence[tuple[Share, ...]],
    task: Task,
    index: int,
    numbers: Iterator[Any],
) -> Iterator[Any]:
    """Run a task over the rows of one shard. Runs on an executor."""
    return run_task(task, index, numbers, lambda _: reader.chunks(shards[index], index))
