"""Parquet files, whose rows the tasks read with pyarrow, and not the JVM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql.types import DataType

from kspark.adapters.base import Columns, Examples, Task, run_task
from kspark.adapters.column_names import missing
from kspark.adapters.column_types import (
    check_types,
    summary_of_schema,
    text_labels_of_schema,
)
from kspark.adapters.dataframe import BatchReader
from kspark.adapters.feeds import FramePlan, plan_frame
from kspark.adapters.refusals import shown
from kspark.cluster.bootstrap import ship
from kspark.cluster.remote import is_connect, map_frame
from kspark.cluster.results import Results
from kspark.errors import Described, invalid
from kspark.files.reading import Column, Selection, read_pieces
from kspark.files.splits import Piece
from kspark.files.table import ParquetFiles
from kspark.files.types import spark_type
from kspark.shards import Chunk, InputSpec, ShardHandle, dense

PART_BYTES = 128 << 20
"""Uncompressed bytes of a task that scores files, as of Spark's own tasks."""

Shards = Sequence[tuple[Piece, ...]]


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of files that a model takes.

    Attributes:
        plan: `FramePlan`.
        columns: Tuple of `Column`, one per name of the plan.
        types: Dictionary from name to Spark's type.
    """

    plan: FramePlan
    columns: tuple[Column, ...]
    types: dict[str, DataType]

    @classmethod
    def of(cls, files: ParquetFiles, plan: FramePlan) -> ChosenColumns:
        """Find the columns of a plan in files.

        Raises:
            ValueError: If one is missing, or of a type that the model does not take.
        """
        found = {
            name: column_of(files, name, argument) for name, argument in plan.arguments.items()
        }
        kinds = {name: spark_type(column.kind) for name, column in found.items()}
        types = {name: kind for name, kind in kinds.items() if kind is not None}
        check_types(plan, types)
        return cls(plan, tuple(found.values()), types)


def column_of(files: ParquetFiles, name: str, argument: str) -> Column:
    """Return a column of files, or a field "struct.field" of one.

    Raises:
        ValueError: If there is none, or if pyarrow and Spark read it differently.
    """
    column = files.column(name)
    if column is None:
        error, advice = missing(name, files.schema.names, argument), files.advice(name)
        raise ValueError(f"{error}. {advice}") if advice else error
    return column


def first_features(files: ParquetFiles, plan: FramePlan) -> list[np.ndarray]:
    """Return the features in the first row of files; none if there is no row."""
    chosen = ChosenColumns.of(files, plan)
    (pieces,) = files.split(1)
    for batch in read_pieces(pieces, files.selection(chosen.columns)):
        return [dense(rows) for rows in next(plan.chunks(batch.slice(0, 1), None, 0)).x]
    return []


class FileExamples(Examples):
    """Rows of Parquet files.

    Args:
        spark: `SparkSession`.
        files: `ParquetFiles`.
        chosen: `ChosenColumns`.
        num_partitions: Integer, number of shards. Each has consecutive rows.
    """

    def __init__(
        self, spark: SparkSession, files: ParquetFiles, chosen: ChosenColumns, num_partitions: int
    ) -> None:
        self._spark = spark
        self._files = files
        self._chosen = chosen
        self._num_partitions = num_partitions

    @property
    def num_examples(self) -> int | None:  # type: ignore[override]
        """Number of rows; with a filter, it is not known."""
        return self._files.num_rows if self._files.filter is None else None

    @property
    def num_partitions(self) -> int:
        """Number of shards."""
        return self._num_partitions

    def no_rows(self, name: str) -> ValueError:
        """See `Examples.no_rows`. With a filter, it is the reason."""
        if self._files.filter is None:
            return super().no_rows(name)
        rule = "conditions that at least one row fulfils"
        return invalid("filters", rule, Described(f"{self._files.filter}, which leaves no rows"))

    @property
    def text_labels(self) -> dict[str, str]:
        """See `Examples.text_labels`."""
        return text_labels_of_schema(self._chosen.plan, self._chosen.types)

    @property
    def summary(self) -> ShardHandle:
        """See `Examples.summary`. From the schema: only the shapes of columns of numbers."""
        return summary_of_schema(self._chosen.plan, self._chosen.types)

    def _repartition(self, num_partitions: int) -> FileExamples:
        return FileExamples(self._spark, self._files, self._chosen, num_partitions)

    def first_rows(self, count: int) -> FileExamples:
        """See `Examples.first_rows` and `ParquetFiles.first`, which refuses a filter."""
        files = self._files.first(count)
        return FileExamples(self._spark, files, self._chosen, self._num_partitions)

    def map_chunks(self, task: Task) -> Results:
        """See `Examples.map_chunks`."""
        selection = self._files.selection(self._chosen.columns)
        shards = self._files.split(self._num_partitions)
        shipped = ship(read_shards, self._chosen.plan, selection, shards)
        return map_numbers(self._spark, len(shards), partial(shipped, task))


def adapt_files(
    spark: SparkSession,
    x: ParquetFiles,
    y: Any,
    sample_weight: Any,
    spec: InputSpec,
    columns: Columns,
) -> FileExamples:
    """Make examples from Parquet files.

    Raises:
        ValueError: If a column is missing or of a type that the model does not take, the label
            column is not named, or `y` or `sample_weight` is set.
    """
    check_named_labels(y, sample_weight, spec, columns)
    chosen = ChosenColumns.of(x, plan_frame(columns, spec))
    return FileExamples(spark, x, chosen, slots_for(spark, x))


def check_named_labels(y: Any, sample_weight: Any, spec: InputSpec, columns: Columns) -> None:
    """Check that labels and weights of files are named, and not beside the files.

    Raises:
        ValueError: If they are not.
    """
    if y is not None or sample_weight is not None:
        name, value = ("y", y) if y is not None else ("sample_weight", sample_weight)
        rule = "None when x names files; name their columns with `label_col` and `weight_col`"
        raise invalid(name, rule, Described(shown(value)))
    if spec.targets and columns.label_col is None:
        rule = f"the column(s) of the labels for the outputs {[t.name for t in spec.targets]}"
        raise invalid("label_col", rule, None)


def slots_for(spark: SparkSession, files: ParquetFiles) -> int:
    """Return the number of shards: one per task slot, as for arrays, but not more than rows.

    Over Spark Connect, the number of slots is not known, and each `PART_BYTES` are a shard.
    """
    known = 1 if is_connect(spark) else spark.sparkContext.defaultParallelism
    parts = files.nbytes // PART_BYTES if is_connect(spark) else 0
    return max(1, min(max(known, parts), files.num_rows))


def map_numbers(spark: SparkSession, count: int, run: Any) -> Results:
    """Run a task in each of `count` partitions, which have a number and no rows."""
    if is_connect(spark):
        return map_frame(spark.range(0, count, 1, count), run)
    return spark.sparkContext.parallelize(range(count), count).mapPartitionsWithIndex(run)


def read_shards(
    plan: FramePlan,
    selection: Selection,
    shards: Shards,
    task: Task,
    index: int,
    numbers: Iterator[Any],
) -> Iterator[Any]:
    """Run a task over the rows of one shard. Runs on an executor."""

    def read(source: Iterator[Any]) -> Iterator[Chunk]:
        return BatchReader(plan, index)(read_pieces(shards[index], selection))

    return run_task(task, index, numbers, read)
