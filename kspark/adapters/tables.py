"""pandas DataFrames and pyarrow Tables on the driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from kspark.adapters.arrays import ArrayExamples, adapt_arrays, is_one_array
from kspark.adapters.base import CHUNK_BYTES, Columns
from kspark.adapters.column_names import missing
from kspark.adapters.conform import Place
from kspark.adapters.feeds import Feed, ReadColumn, plan_frame
from kspark.adapters.sparse import is_matrix, stack_rows, to_rows, with_first_rows
from kspark.adapters.tensors import host_array
from kspark.shards import Features, InputSpec, dense


def is_pandas(value: object) -> bool:
    """Whether a value is a pandas DataFrame. pandas need not be installed."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def is_array_like(value: object) -> bool:
    """Whether a value is an array, or a list or dictionary that may hold arrays."""
    kinds = list | tuple | dict
    return hasattr(value, "__array__") or isinstance(value, kinds) or is_matrix(value)


def head(x: Any, num_parts: int = 1) -> Any:
    """Return the first row of data on the driver, in the structure of the data.

    Args:
        x: The data.
        num_parts: Integer, number of arrays that the model, or its preprocessing, takes: a list of
            as many has an array for each. Other lists have one element per row. Defaults to `1`.
    """
    if is_pandas(x):
        return x.head(1)
    if isinstance(x, pa.Table):
        return x.slice(0, 1)
    if not is_array_like(x):
        return x
    if is_matrix(x):
        return with_first_rows(x)
    if isinstance(x, Mapping):
        return {name: head(part) for name, part in x.items()}
    if isinstance(x, list | tuple) and len(x) == num_parts > 1:
        return [head(part) for part in x]
    if is_one_array(x):
        return head(x[0])
    if hasattr(x, "__array__"):
        x = host_array(x)
    if not isinstance(x, list | tuple) and np.ndim(x) == 0:
        return x
    rows = x[:1]
    if not is_one_array(rows):
        return rows
    # A list of one array would count as the array of all rows.
    return with_first_rows(rows[0]) if is_matrix(rows[0]) else np.asarray(rows)


def adapt_pandas(
    spark: SparkSession, x: Any, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> ArrayExamples:
    """Make examples from a pandas DataFrame.

    If the labels are in `y`, or no labels are needed, all columns are features, as in
    Keras, unless `features_col` names some of the columns.

    Raises:
        ValueError: If a column is missing, or does not fit `spec`.
    """
    if all_are_features(list(x.columns), y, spec, columns):
        return adapt_arrays(spark, values_of(x, spec), y, sample_weight, spec, columns)

    def read(name: str, place: Place, is_loose: bool) -> Features:
        return column_values(x[name], place, is_loose)

    return adapt_columns(spark, read, list(x.columns), y, sample_weight, spec, columns)


def adapt_table(
    spark: SparkSession, x: pa.Table, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> ArrayExamples:
    """Make examples from a pyarrow Table. All columns are features as in `adapt_pandas`.

    Raises:
        ValueError: If a column is missing, or does not fit `spec`.
    """
    if all_are_features(x.column_names, y, spec, columns):
        names = x.column_names
        columns = replace(columns, features_col=names[0] if len(names) == 1 else names)

    def read(name: str, place: Place, is_loose: bool) -> Features:
        column = x.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # some versions keep it one
            column = pa.concat_arrays(column.chunks)
        return to_rows(column, place, is_loose=is_loose)

    return adapt_columns(spark, read, x.column_names, y, sample_weight, spec, columns)


def all_are_features(available: Sequence[str], y: Any, spec: InputSpec, columns: Columns) -> bool:
    """Whether all columns of a table are features: no other argument names a column of it."""
    bare = y is not None or not spec.targets
    return bare and columns.features_col == "features" and "features" not in available


def with_names(x: Any, columns: Columns, *, bare: bool) -> Columns:
    """Return `Columns` that name the features of a table, also if these are all its columns.

    Args:
        x: Data of any kind.
        columns: `Columns`.
        bare: Boolean, whether the labels are not in the table, or not needed.
    """
    if not is_pandas(x) and not isinstance(x, pa.Table):
        return columns
    available = [str(name) for name in (x.columns if is_pandas(x) else x.column_names)]
    spec = InputSpec(())
    if not bare or not all_are_features(available, None, spec, columns):
        return columns
    return replace(columns, features_col=available)


def values_of(x: Any, spec: InputSpec) -> Any:
    """Return the values of a pandas DataFrame: one array, or one per column and input.

    Columns of arrays, lists or vectors become arrays with further axes.
    """
    split = len(spec.inputs) > 1
    kinds = set(x.dtypes)
    if not split and len(kinds) <= 1 and all(kind.kind in "biuf" for kind in kinds):
        return x.to_numpy()
    parts = []
    for i, name in enumerate(x.columns):
        parts.append(column_values(x.iloc[:, i], Place(f"Column {name!r}")))
    if split or len(parts) == 1:
        return parts if split else parts[0]
    feed = Feed(spec.inputs[0], tuple(map(str, x.columns)))
    return joined_by_blocks(feed, parts, spec.floatx, "The columns of `x`")


def joined_by_blocks(
    feed: Feed, parts: Sequence[Features], floatx: str, name: str | None = None
) -> Any:
    """Join columns as `Feed.array` does. Takes the memory of the result, and of a few rows more.

    Args:
        feed: `Feed`.
        parts: Sequence of the arrays of its columns.
        floatx: String, see `InputSpec`.
        name: String, name of the columns in errors. Defaults to the title of the feed.
    """
    name = feed.title if name is None else name
    rows, nbytes = len(parts[0]), sum(part.nbytes for part in parts)
    are_numbers = all(isinstance(p, np.ndarray) and p.dtype.kind in "biuf" for p in parts)
    if len(parts) == 1 or not nbytes or not are_numbers:
        return feed.array(parts, floatx, Place(name))
    size = max(1, CHUNK_BYTES * rows // nbytes)

    def block(start: int) -> np.ndarray:
        rows_of_each = [part[start : start + size] for part in parts]
        return feed.array(rows_of_each, floatx, Place(name, None, start))

    first = block(0)
    joined = np.empty((rows, *first.shape[1:]), first.dtype)
    joined[:size] = first
    for start in range(size, rows, size):
        joined[start : start + size] = block(start)
    return joined


def column_values(column: Any, place: Place, is_loose: bool = False) -> Features:
    """Return the values of a pandas column; one array if they are arrays, lists or vectors.

    Args:
        column: `pandas.Series`.
        place: `Place` of the column, for errors.
        is_loose: As for `stack_rows`. Defaults to `False`.
    """
    values: np.ndarray = column.to_numpy()
    if values.dtype != object or not len(values):
        return values
    missing = column.isna().to_numpy()
    if missing.any() and any(isinstance(v, str | bytes) for v in values):
        values = values.copy()
        values[missing] = None  # pandas has NaN or NA in place of missing text.
    return stack_rows(values.tolist(), place, is_loose=is_loose)


def adapt_columns(
    spark: SparkSession,
    read: ReadColumn,
    available: Sequence[str],
    y: Any,
    sample_weight: Any,
    spec: InputSpec,
    columns: Columns,
    *,
    is_mapped: bool = False,
) -> ArrayExamples:
    """Make examples from the columns of a table. `y` and `sample_weight` replace its columns.

    Args:
        spark: `SparkSession`.
        read: `ReadColumn`.
        available: Sequence of strings, the names of the columns.
        y: The user's labels beside the table, or `None`.
        sample_weight: The user's weights beside the table, or `None`.
        spec: `InputSpec`.
        columns: `Columns`.
        is_mapped: Boolean, whether columns are mapped from files, so that each is converted only
            when its rows are sent. Defaults to `False`.
    """
    if y is not None:
        columns = replace(columns, label_col=None)
    if sample_weight is not None:
        columns = replace(columns, weight_col=None)
    plan = plan_frame(columns, spec)
    known = set(available)
    for name, argument in plan.arguments.items():
        if name not in known:
            raise missing(name, available, argument)

    def arrays(feeds: Sequence[Feed], convert: Callable[[Features], Features] = dense) -> Any:
        found = []
        for feed in feeds:
            parts = [convert(read(n, Place(f"Column {n!r}"), feed.is_loose)) for n in feed.names]
            is_kept = is_mapped and len(parts) == 1
            found.append(parts[0] if is_kept else joined_by_blocks(feed, parts, spec.floatx))
        return found if len(found) != 1 else found[0]

    return adapt_arrays(
        spark,
        arrays(plan.x, lambda rows: rows),
        arrays(plan.y) if plan.y else y,
        arrays(plan.sample_weight) if plan.sample_weight else sample_weight,
        spec,
        columns,
    )
