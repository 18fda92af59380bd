"""The first row of what the user gave, for a model that was defined without an input shape."""

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
    """What a `SparkJob` collects of an RDD or a DataFrame: a row, none if it is empty."""

    rows: Any

    def collect(self) -> list[Any]:
        """As of an RDD."""
        return list(self.rows.take(1))


def first_example(
    spark: SparkSession, x: Any, columns: Columns, *, labelled: bool
) -> np.ndarray | None:
    """The first row of a model's one input, as it is found. Data on Spark take a small job.

    Args:
        spark: `SparkSession`.
        x: As for `kspark.adapters.adapt`.
        columns: `Columns` of tables.
        labelled: Boolean, whether `x` holds labels, too.

    Returns:
        Array of one row; `None` if there is none, or if it is not one array.

    Raises:
        ValueError: If the row is not usable.
        TypeError: If no kind of input matches.
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
    """The features in the first row of a DataFrame."""
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
