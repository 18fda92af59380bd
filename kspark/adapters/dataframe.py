"""Spark DataFrames, read as Arrow record batches by `mapInArrow`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DataType

from kspark.adapters.base import Columns, Examples, Task, run_task
from kspark.adapters.column_names import SHOWN_NAMES
from kspark.adapters.column_types import (
    check_types,
    summary_of_schema,
    text_labels_of_schema,
)
from kspark.adapters.feeds import FramePlan, plan_frame
from kspark.adapters.frame_columns import FrameColumns, packed_plan
from kspark.adapters.refusals import shown
from kspark.cluster.bootstrap import ship
from kspark.cluster.remote import map_frame
from kspark.cluster.results import Results
from kspark.errors import Described, invalid
from kspark.shards import Chunk, InputSpec, ShardHandle


class DataFrameExamples(Examples):
    """Rows of a DataFrame.

    With adaptive execution, the number of partitions is known only after the shuffles of the
    DataFrame have run. So it is determined in `map_chunks`, if possible.

    Args:
        frame: DataFrame of the columns of `plan.sources`, in their order.
        plan: `FramePlan`.
        types: Mapping from the name of each column of the plan to its type.
        wanted: Integer, the number of partitions. Defaults to `None`, those of the DataFrame.
    """

    def __init__(
        self,
        frame: DataFrame,
        plan: FramePlan,
        types: Mapping[str, DataType],
        wanted: int | None = None,
    ) -> None:
        self._frame = frame
        self._plan = plan
        self._types = types
        self._wanted = wanted

    @property
    def num_partitions(self) -> int:
        """Number of partitions. Runs the DataFrame's shuffles if the number was not set."""
        if self._wanted is None:
            self._wanted = self._frame.rdd.getNumPartitions()
        return self._wanted

    @property
    def text_labels(self) -> dict[str, str]:
        """See `Examples.text_labels`."""
        return text_labels_of_schema(self._plan, self._types)

    @property
    def summary(self) -> ShardHandle:
        """See `Examples.summary`. From the schema: only the shapes of columns of numbers."""
        return summary_of_schema(self._plan, self._types)

    @property
    def is_single(self) -> bool:
        """See `Examples.is_single`."""
        return self._wanted == 1

    def first_rows(self, count: int) -> DataFrameExamples:
        """See `Examples.first_rows`."""
        frame = self._frame.limit(count)
        return DataFrameExamples(frame, self._plan, self._types, self._wanted)

    def repartition(self, num_partitions: int) -> DataFrameExamples:
        """See `Examples.repartition`. `map_chunks` determines whether rows must move."""
        return self._repartition(num_partitions)

    def _repartition(self, num_partitions: int) -> DataFrameExamples:
        return DataFrameExamples(self._frame, self._plan, self._types, num_partitions)

    def map_chunks(self, task: Task) -> Results:
        """See `Examples.map_chunks`."""
        run = partial(ship(read_batches, self._plan), task)
        results = map_frame(self._frame, run)
        count = results.getNumPartitions()
        if self._wanted is not None and self._wanted != count:
            return map_frame(self._moved(count, self._wanted), run)
        return results

    def _moved(self, count: int | None, wanted: int) -> DataFrame:
        """Move the rows to `wanted` partitions. There are `count` now, or `None` if unknown."""
        if wanted == 1 or (count is not None and count % wanted == 0):
            return self._frame.coalesce(wanted)
        return self._frame.repartition(wanted)


def adapt_frame(
    spark: SparkSession,
    x: DataFrame,
    y: Any,
    sample_weight: Any,
    spec: InputSpec,
    columns: Columns,
) -> DataFrameExamples:
    """Make examples from a DataFrame.

    Raises:
        ValueError: If a column is missing or of a type that no model takes, the label column
            is not named, or `y` or `sample_weight` is set.
    """
    if y is not None or sample_weight is not None:
        name, value = ("y", y) if y is not None else ("sample_weight", sample_weight)
        rule = "None when x is a DataFrame; name its columns with `label_col` and `weight_col`"
        raise invalid(name, rule, Described(shown(value)))
    if spec.targets and columns.label_col is None:
        rule = f"the column(s) of the labels for the outputs {[t.name for t in spec.targets]}"
        raise invalid("label_col", rule, None)
    if x.isStreaming:
        rule = (
            "a DataFrame that is not streaming; train on its batches with "
            "`x.writeStream.foreachBatch(lambda rows, batch: spark_model.fit(rows)).start()`"
        )
        raise invalid("x", rule, Described("a streaming DataFrame"))
    chosen = FrameColumns(x)
    plan, types = chosen_plan(chosen, plan_frame(columns, spec))
    return DataFrameExamples(chosen_columns(x, chosen, plan), plan, types)


def chosen_plan(columns: FrameColumns, plan: FramePlan) -> tuple[FramePlan, dict[str, DataType]]:
    """Check the columns of a plan, and decide which of them Spark packs into one.

    Returns:
        Tuple of the plan and the types of its columns.

    Raises:
        ValueError: If a column is missing, or of a type that the model does not take.
    """
    types = columns.types_of(plan.arguments)
    check_types(plan, types)
    return packed_plan(plan, types), types


def chosen_columns(frame: DataFrame, columns: FrameColumns, plan: FramePlan) -> DataFrame:
    """Select the columns of `plan.sources`, in their order, under the names c0, c1 and so on."""
    sources = columns.sources(plan)
    return frame.select([source.alias(f"c{i}") for i, source in enumerate(sources)])


def column_name(frame: DataFrame, name: str) -> str | None:
    """Return the name of a column as a DataFrame spells it; see `FrameColumns.own_name`."""
    return FrameColumns(frame).own_name(name)


def check_new_column(frame: DataFrame, name: str, argument: str) -> None:
    """Refuse to add a column whose name is taken.

    Args:
        frame: DataFrame.
        name: String, the name of the column to add.
        argument: String, the argument or Param that gives the name, for the error.

    Raises:
        ValueError: If the frame has a column of that name.
    """
    if column_name(frame, name) is not None:
        many = len(frame.columns) > SHOWN_NAMES
        shown = f"{len(frame.columns)} columns" if many else f"columns {frame.columns}"
        rule = f"a name that is not among the {shown}"
        raise invalid(argument, rule, name)


def chosen_column(frame: DataFrame, name: str, alias: str, argument: str | None = None) -> Any:
    """Return a column by its name, which may have any characters, or a field "struct.field".

    Args:
        frame: DataFrame.
        name: String, the name.
        alias: String, the new name of the column.
        argument: String, the argument that names the column, for the error. Defaults to `None`.

    Raises:
        ValueError: If there is no such column.
    """
    return FrameColumns(frame).column(name, argument).alias(alias)


@dataclass
class BatchReader:
    """Turns the record batches of a partition into chunks.

    Args:
        plan: `FramePlan`.
        partition: Integer.
    """

    plan: FramePlan
    partition: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Chunk]:
        """Yield chunks of consecutive rows."""
        first = 0
        for batch in batches:
            yield from self.plan.chunks(batch, self.partition, first)
            first += batch.num_rows


def read_batches(
    plan: FramePlan, task: Task, index: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[Any]:
    """Run a task over one partition. Runs on an executor."""
    return run_task(task, index, batches, BatchReader(plan, index))
