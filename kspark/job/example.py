"""Read the first row of the input, to build a model that has no input shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession

from kspark.adapters import Columns, adapt, head
from kspark.adapters.arrays import ArrayExamples
from kspark.adapters.conform import Place, stack
from kspark.adapters.dataframe import chosen_columns, chosen_plan
from kspark.adapters.feeds import plan_frame
from kspark.adapters.files import first_features
from kspark.adapters.frame_columns import FrameColumns
from kspark.adapters.rdd import RowReader
from kspark.adapters.records import first_features_of_records
from kspark.cluster.spark_job import run
from kspark.files.records import RecordFiles
from kspark.files.table import ParquetFiles
from kspark.shards import ArraySpec, InputSpec

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
        rows = run(spark, FirstRow(x), "kspark: look at the first row")
        return (
            RowReader(LABELLED if labelled else FEATURES, 0).chunk(rows, 0).x[0] if rows else None
        )
    names: list[str] = []
    if isinstance(columns.features_col, Mapping):
        names = sorted(columns.features_col)
        if len(names) == 1:
            columns = replace(columns, features_col=columns.features_col[names[0]])
    inputs = tuple(ArraySpec(name) for name in names) if len(names) > 1 else FEATURES.inputs
    spec = InputSpec(inputs, LABELLED.targets if labelled else ())
    if isinstance(x, DataFrame):
        arrays = first_of_frame(spark, x, columns, spec)
    elif isinstance(x, ParquetFiles):
        features = replace(columns, label_col=None, weight_col=None)
        arrays = first_features(x, plan_frame(features, spec))
    elif isinstance(x, RecordFiles):
        features = replace(columns, label_col=None, weight_col=None)
        arrays = first_features_of_records(x, plan_frame(features, spec))
    else:
        examples = adapt(spark, head(x), spec=spec, columns=columns)
        arrays = examples.first.x if isinstance(examples, ArrayExamples) else []
    if len(arrays) > 1:
        return dict(zip(names, arrays, strict=True))
    return arrays[0] if arrays else None


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
    rows = run(spark, FirstRow(chosen_columns(frame, found, plan)), "kspark: look at the first row")
    if not rows:
        return []
    values = dict(zip(plan.sources, rows[0], strict=True))
    return [
        feed.array(
            [
                stack(
                    [values[names]],
                    Place(f"Column {names[0]!r}" if len(names) == 1 else feed.title),
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
