"""Read the first row of the input, to build a model that has no input shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from kspark.adapters import Columns, Examples, Factory, adapt, head
from kspark.adapters.arrays import ArrayExamples
from kspark.adapters.conform import Place, stack
from kspark.adapters.dataframe import chosen_columns, chosen_plan
from kspark.adapters.factories import FactoryRows, first_features
from kspark.adapters.feeds import plan_frame
from kspark.adapters.files import first_features as first_of_files
from kspark.adapters.files import map_numbers
from kspark.adapters.frame_columns import FrameColumns
from kspark.adapters.rdd import RowReader
from kspark.adapters.records import first_features_of_records
from kspark.classic import RDD
from kspark.cluster.bootstrap import ship
from kspark.cluster.spark_job import run_once
from kspark.files.records import RecordFiles
from kspark.files.table import ParquetFiles
from kspark.job.spooling import read_handle
from kspark.job.stored import collect_examples
from kspark.shards import ArraySpec, InputSpec, dense
from kspark.worker.example import first_features_of_chunks

FEATURES = InputSpec((ArraySpec("x"),))
LABELLED = InputSpec(FEATURES.inputs, (ArraySpec("y"),))


@dataclass(frozen=True)
class FirstRow:
    """The first row of an RDD or a DataFrame, for `SparkJob` to collect.

    Attributes:
        rows: RDD or DataFrame.
    """

    rows: Any

    def collect(self) -> list[Any]:
        """Return a list of the first row; an empty list if there is none."""
        return list(self.rows.take(1))


def first_example(spark: SparkSession, x: Any, columns: Columns, *, labelled: bool) -> Any:
    """Return the first row of the features. Runs a small job if the data is on Spark.

    Args:
        spark: `SparkSession`.
        x: Input of any kind that `kspark.adapters.adapt` takes.
        columns: `Columns` of tables.
        labelled: Boolean, whether `x` contains the labels too.

    Returns:
        Array of one row, or a dictionary of arrays if `features_col` is one of several inputs.
        `None` if there is no row.

    Raises:
        ValueError: If the row is not usable, or a column is missing.
        TypeError: If `x` is of no supported kind.
    """
    if isinstance(x, RDD):
        arrays = first_arrays_of_rdd(first_of_rdd(spark, x, labelled=labelled), FEATURES)
        return dense(arrays[0]) if arrays else None
    names: list[str] = []
    if isinstance(columns.features_col, Mapping):
        names = sorted(columns.features_col)
        if len(names) == 1:
            columns = replace(columns, features_col=columns.features_col[names[0]])
    inputs = tuple(ArraySpec(name) for name in names) if len(names) > 1 else FEATURES.inputs
    spec = InputSpec(inputs, LABELLED.targets if labelled else ())
    arrays = first_arrays(spark, x, columns, spec, reads=False)
    if len(arrays) > 1:
        return dict(zip(names, arrays, strict=True))
    return arrays[0] if arrays else None


def first_of_examples(spark: SparkSession, examples: Examples) -> list[np.ndarray]:
    """Return the features in the first row of examples, one array each. Runs a small job.

    Args:
        spark: `SparkSession`.
        examples: `Examples` with their own order of rows.

    Returns:
        List of arrays of one row; empty if there is no row.

    Raises:
        ValueError: If the row is not usable.
        WorkerError: If the job fails.
    """
    task = ship(first_features_of_chunks)
    one = examples.first_rows(1)
    found = collect_examples(spark, one, task, "kspark: look at the first row", None)
    for document in found:
        if isinstance(document, bytes):
            read_handle(document)  # raises the failure
    return found[0] if found else []


def first_of_factory(spark: SparkSession, x: Factory, num_workers: int | None) -> Any:
    """Return the features of the first row that a function makes for worker 0, in a small job.

    Raises:
        WorkerError: If the function raises an exception.
        ValueError: If there is no row, or it is not usable.
        TypeError: If the function returns no data.
    """
    examples = adapt(spark, x, spec=FEATURES, num_workers=num_workers)
    rows = FactoryRows(x.make, FEATURES, examples.num_partitions)
    look = map_numbers(spark, 1, ship(first_features, rows))
    (found,) = run_once(spark, look, "kspark: look at the first row")
    if isinstance(found, bytes):
        read_handle(found)  # raises the failure
    return found


def first_arrays(
    spark: SparkSession, x: Any, columns: Columns, spec: InputSpec, *, reads: bool = True
) -> list[np.ndarray]:
    """Return the features in the first row, one array per input of a spec; none if there is no row.

    Args:
        spark: `SparkSession`.
        x: Input of any kind but RDDs.
        columns: `Columns` of tables.
        spec: `InputSpec`. If it has targets, the names of the columns of labels are checked, too.
        reads: Boolean, whether the values must be those of the row, and not only the shapes and
            types. Defaults to `True`.
    """
    if isinstance(x, DataFrame):
        return first_of_frame(spark, x, columns, spec)
    if isinstance(x, ParquetFiles):
        features = replace(columns, label_col=None, weight_col=None)
        return first_of_files(x, plan_frame(features, spec))
    if isinstance(x, RecordFiles):
        features = replace(columns, label_col=None, weight_col=None)
        if not reads:
            return first_features_of_records(x, plan_frame(features, spec))
        records = adapt(spark, x, spec=InputSpec(spec.inputs), columns=features, num_workers=1)
        return first_of_examples(spark, records)
    examples = adapt(spark, head(x, len(spec.inputs)), spec=spec, columns=columns)
    first = examples.first.x if isinstance(examples, ArrayExamples) else []
    return [dense(rows) for rows in first]


def first_of_rdd(spark: SparkSession, rdd: RDD[Any], *, labelled: bool) -> list[Any]:
    """Return a list of the features in the first row of an RDD, as they are; none if it is empty.

    Args:
        spark: `SparkSession`.
        rdd: RDD of rows.
        labelled: Boolean, whether the rows contain the labels, too.
    """
    rows = first_row_of(spark, rdd)
    return [row[0] for row in RowReader(LABELLED, 0).tuples(rows, 0)] if rows and labelled else rows


def first_row_of(spark: SparkSession, rows: RDD[Any] | DataFrame) -> list[Any]:
    """Return a list of the first row of an RDD or a DataFrame; none if it is empty.

    Raises:
        WorkerError: If the job fails.
    """
    return run_once(spark, FirstRow(rows), "kspark: look at the first row")


def first_arrays_of_rdd(rows: Sequence[Any], spec: InputSpec) -> list[Any]:
    """Return the features of what `first_of_rdd` has found, one array per input of a spec."""
    return RowReader(spec, 0).arrays(rows, spec.inputs, "x", 0) if rows else []


def first_of_frame(
    spark: SparkSession, frame: DataFrame, columns: Columns, spec: InputSpec
) -> list[np.ndarray]:
    """Return the features in the first row of a DataFrame; none if it is empty or a stream."""
    if frame.isStreaming:
        return []
    if spec.targets:
        check_named(frame, columns)
    plan = plan_frame(replace(columns, label_col=None, weight_col=None), spec)
    found = FrameColumns(frame)
    plan, _ = chosen_plan(found, plan)
    rows = first_row_of(spark, chosen_columns(frame, found, plan))
    if not rows:
        return []
    values = dict(zip(plan.sources, rows[0], strict=True))
    return [
        feed.array(
            [
                stack(
                    [values[names]],
                    Place(f"Column {names[0]!r}" if len(names) == 1 else feed.title),
                    is_loose=feed.is_loose,
                )
                for names in feed.sources
            ],
            spec.floatx,
            Place(feed.title),
        )
        for feed in plan.x
    ]


def check_named(frame: DataFrame, columns: Columns) -> None:
    """Refuse names of labels and weights that the DataFrame lacks, before a job reads a row.

    Raises:
        ValueError: If a column is missing.
    """
    columns_of_frame = FrameColumns(frame)
    for argument in ("label_col", "weight_col"):
        value = getattr(columns, argument)
        values = value.values() if isinstance(value, Mapping) else [value]
        for names in values:
            for name in [names] if isinstance(names, str) else names or ():
                columns_of_frame.column(name, argument)
