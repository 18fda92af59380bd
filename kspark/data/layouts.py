"""Find the arrays in the user's data, and their structure, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from pyspark.sql import SparkSession

from kspark.adapters import Columns, Stream, is_table
from kspark.adapters.feeds import feature_names
from kspark.adapters.layout import Group, Layout
from kspark.adapters.sparse import is_matrix
from kspark.adapters.tables import all_are_features, is_pandas
from kspark.classic import RDD
from kspark.errors import Described, invalid
from kspark.job.example import first_row_of


def layout_of(spark: SparkSession, x: Any, y: Any, sample_weight: Any, columns: Columns) -> Layout:
    """Find the arrays of features, labels and weights.

    Args:
        spark: `SparkSession`.
        x: Data of one of the kinds that `kspark.adapters.adapt` takes. For an RDD, a job reads the
            first row.
        y: Labels beside `x`, or `None`.
        sample_weight: Weights beside `x`, or `None`.
        columns: `Columns` of a table. Without a `label_col`, `x` contains no labels.

    Raises:
        ValueError: If `x` is an RDD without rows, or whose rows have no labels.
    """
    if is_table(x):
        return table_layout(x, y, sample_weight, columns)
    if isinstance(x, RDD):
        x, y, sample_weight = first_parts(spark, x, labelled=columns.label_col is not None)
    elif isinstance(x, Stream):
        x, y, sample_weight = x.first
        if columns.label_col is None:
            y = sample_weight = None
    return layout(group_of(x, "x"), group_of(y, "y"), sample_weight)


def table_layout(x: Any, y: Any, sample_weight: Any, columns: Columns) -> Layout:
    """Find the arrays of a table: one for column(s), several for a dictionary."""
    features = column_group(columns.features_col, "x")
    if features.structure == "single":
        features = replace(features, columns=feature_names(columns.features_col))
    names = list(x.columns) if is_pandas(x) else getattr(x, "column_names", None)
    labels = column_group(columns.label_col, "y") if y is None else group_of(y, "y")
    if names is not None and all_are_features(names, y, Layout(features, labels).spec, columns):
        features = Group(("x",), columns=tuple(map(str, names)))
    weights = columns.weight_col if sample_weight is None else sample_weight
    return layout(features, labels, weights)


def layout(x: Group, y: Group, sample_weight: Any) -> Layout:
    """Make a layout with the weights of the labels: one array for all, or one for each."""
    weights = Group()
    if sample_weight is not None and y.names:
        per_label = isinstance(sample_weight, Mapping) or (
            isinstance(sample_weight, list | tuple) and len(y.names) > 1
        )
        weights = y if per_label else Group(("sample_weight",))
    return Layout(x, y, weights, keras.config.floatx())


def column_group(value: Any, name: str) -> Group:
    """Return the group of some columns."""
    if value is None:
        return Group()
    return Group(tuple(value), "dict") if isinstance(value, Mapping) else Group((name,))


def group_of(value: Any, name: str) -> Group:
    """Return the group of an array, or of a list or dictionary of arrays."""
    if value is None:
        return Group()
    if isinstance(value, Mapping):
        return Group(tuple(value), "dict")
    if is_list_of_arrays(value) and len(value) > 1:
        return Group(tuple(f"{name}{i}" for i in range(len(value))), "list")
    return Group((name,))


def is_list_of_arrays(value: Any) -> bool:
    """Whether a value is a list of arrays, as Keras takes it, and not of numbers or rows."""

    def is_array(part: Any) -> bool:
        if is_matrix(part):  # A matrix of one row is a row.
            return bool(part.shape[0] != 1)
        return hasattr(part, "__array__") and np.ndim(part) > 0 and not hasattr(part, "toArray")

    return isinstance(value, list | tuple) and all(map(is_array, value))


def first_parts(spark: SparkSession, rows: RDD[Any], *, labelled: bool) -> tuple[Any, Any, Any]:
    """Return features, labels and weight of the first row of an RDD.

    Raises:
        ValueError: If there is no row, or if it has no labels although it must have them.
    """
    found = first_row_of(spark, rows)
    if not found:
        raise invalid("x", "a data set with at least one example", Described("0 examples"))
    row = found[0]
    if not labelled:
        return row, None, None
    if hasattr(row, "features") and not isinstance(row, tuple):  # LabeledPoint
        return row.features, row.label, None
    if not isinstance(row, list | tuple) or len(row) not in (2, 3):
        rule = "an RDD of (x, y) or (x, y, sample_weight); set `label_col=None` for features alone"
        raise invalid("x", rule, Described(f"rows that are {type(row).__name__} objects"))
    x, y, weight = (*row, None)[:3]
    return x, y, weight
