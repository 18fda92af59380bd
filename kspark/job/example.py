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
from kspark.adapters.dataframe import chosen_column
from kspark.adapters.feeds import plan_frame
from kspark.adapters.rdd import RowReader
from kspark.cluster.spark_job import run
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


def first_example(
    spark: SparkSession, x: Any, columns: Columns, *, labelled: bool
) -> np.ndarray | None:
    """Return the first row of the features. Runs a small job if the data is on Spark.

    Args:
        spark: `SparkSession`.
        x: Input of any kind that `kspark.adapters.adapt` takes.
        columns: `Columns` of tables.
        labelled: Boolean, whether `x` contains the labels too.

    Returns:
        Array of one row. `None` if there is no row, or if the features are several arrays.

    Raises:
        ValueError: If the row is not usable.
        TypeError: If `x` is of no supported kind.
    """
    spec = LABELLED if labelled else FEATURES
    if isinstance(x, RDD):
        rows = run(spark, FirstRow(x), "kspark: look at the first row")
        return RowReader(spec, 0).chunk(rows, 0).x[0] if rows else None
    feature = columns.features_col
    if isinstance(feature, Mapping):
        if len(feature) != 1:
            return None
        columns = replace(columns, features_col=next(iter(feature.values())))
    if isinstance(x, DataFrame):
        return first_of_frame(spark, x, columns)
    examples = adapt(spark, head(x), spec=spec, columns=columns)
    return examples.first.x[0] if isinstance(examples, ArrayExamples) else None


def first_of_frame(spark: SparkSession, frame: DataFrame, columns: Columns) -> np.ndarray | None:
    """Return the features in the first row of a DataFrame; `None` if it is empty or a stream."""
    if frame.isStreaming:
        return None
    (feed,) = plan_frame(replace(columns, label_col=None, weight_col=None), FEATURES).x
    chosen = [chosen_column(frame, name, f"c{i}") for i, name in enumerate(feed.names)]
    rows = run(spark, FirstRow(frame.select(chosen)), "kspark: look at the first row")
    if not rows:
        return None
    places = [Place(f"Column {name!r}") for name in feed.names]
    parts = [stack([value], place) for value, place in zip(rows[0], places, strict=True)]
    return feed.array(parts, FEATURES.floatx, Place(feed.title))
