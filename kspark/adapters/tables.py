"""pandas DataFrames and pyarrow Tables on the driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from kspark.adapters.arrays import ArrayExamples, adapt_arrays, is_one_array
from kspark.adapters.base import Columns
from kspark.adapters.columns import to_numpy
from kspark.adapters.conform import Place, stack
from kspark.adapters.feeds import Feed, missing, plan_frame
from kspark.shards import InputSpec


def is_pandas(value: object) -> bool:
    """Whether a value is a pandas DataFrame. pandas need not be installed."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def head(x: Any) -> Any:
    """Return the first row of data on the driver, in the structure of the data."""
    if is_pandas(x):
        return x.head(1)
    if isinstance(x, pa.Table):
        return x.slice(0, 1)
    if is_one_array(x):
        x = x[0]
    if hasattr(x, "__array__"):
        x = np.asarray(x)
    if not isinstance(x, list | tuple) and np.ndim(x) == 0:
        return x
    rows = x[:1]
    # A list of one array would count as the array of all rows.
    return np.asarray(rows) if is_one_array(rows) else rows


def adapt_pandas(
    spark: SparkSession, x: Any, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> ArrayExamples:
    """Make examples from a pandas DataFrame.

    If the labels are in `y`, or no labels are needed, all columns are features, as in
    Keras, unless `features_col` names some of the columns.

    Raises:
        ValueError: If a column is missing, or does not fit `spec`.
    """
    bare = y is not None or not spec.targets
    if bare and columns.features_col == "features" and "features" not in x.columns:
        return adapt_arrays(spark, x.to_numpy(), y, sample_weight, spec, columns)

    def read(name: str, place: Place) -> np.ndarray:
        values = x[name].to_numpy()
        return stack(values.tolist(), place) if values.dtype == object else values

    return adapt_columns(spark, read, list(x.columns), y, sample_weight, spec, columns)


def adapt_table(
    spark: SparkSession, x: pa.Table, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> ArrayExamples:
    """Make examples from a pyarrow Table.

    Raises:
        ValueError: If a column is missing, or does not fit `spec`.
    """

    def read(name: str, place: Place) -> np.ndarray:
        column = x.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # some versions keep it one
            column = pa.concat_arrays(column.chunks)
        return to_numpy(column, place)

    return adapt_columns(spark, read, x.column_names, y, sample_weight, spec, columns)


def adapt_columns(
    spark: SparkSession,
    read: Callable[[str, Place], np.ndarray],
    available: Sequence[str],
    y: Any,
    sample_weight: Any,
    spec: InputSpec,
    columns: Columns,
) -> ArrayExamples:
    """Make examples from the columns of a table. `y` and `sample_weight` replace its columns."""
    if y is not None:
        columns = replace(columns, label_col=None)
    if sample_weight is not None:
        columns = replace(columns, weight_col=None)
    plan = plan_frame(columns, spec)
    for name in plan.names:
        if name not in available:
            raise missing(name, available)

    def arrays(feeds: Sequence[Feed]) -> Any:
        found = []
        for feed in feeds:
            parts = [read(n, Place(f"Column {n!r}")) for n in feed.names]
            found.append(feed.array(parts, spec.floatx, Place(feed.title)))
        return found if len(found) != 1 else found[0]

    return adapt_arrays(
        spark,
        arrays(plan.x),
        arrays(plan.y) if plan.y else y,
        arrays(plan.sample_weight) if plan.sample_weight else sample_weight,
        spec,
        columns,
    )
