"""Conversions between arrays, RDDs, DataFrames and MLlib's types, as Elephas users know them.

`SparkModel.fit` takes arrays, RDDs and DataFrames as they are; these are for
code that already works with them. Labels are never cut to integers, matrices
keep their rows and columns, and no temporary view is left in the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark import RDD, SparkContext
from pyspark.mllib.linalg import VectorUDT
from pyspark.mllib.regression import LabeledPoint
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType

from kspark.adapters import Columns, Examples, adapt
from kspark.adapters.dataframe import chosen_column, is_vector_type
from kspark.adapters.slices import rows_rdd, vector_frame
from kspark.cluster.bootstrap import ship
from kspark.errors import invalid, invalid_type
from kspark.shards import ArraySpec, InputSpec
from kspark.worker.rows import (
    Arrays,
    array_rows,
    chunk_arrays,
    encode_labels,
    largest_label,
    largest_of_points,
    pairs,
    point_rows,
    points,
    stacked_points,
)

AS_FOUND = InputSpec((ArraySpec("features"),), (ArraySpec("label"),), floatx="float64")


def to_simple_rdd(
    sc: SparkContext,
    features: np.ndarray | Sequence[Any],
    labels: np.ndarray | Sequence[Any],
) -> RDD[Any]:
    """Arrays as an RDD of `(x, y)` rows.

    Example:

    ```python
    rdd = to_simple_rdd(spark.sparkContext, x, y)
    spark_model.fit(rdd, epochs=5)
    ```

    Args:
        sc: `SparkContext`.
        features: Array or sequence, one row per example.
        labels: Array or sequence of as many labels.

    Returns:
        RDD of pairs, in order.

    Raises:
        ValueError: If the lengths differ.
    """
    return rows_rdd(sc, *same_length(features, labels), pairs)


def to_labeled_point(
    sc: SparkContext,
    features: np.ndarray | Sequence[Any],
    labels: np.ndarray | Sequence[Any],
    categorical: bool = False,
) -> RDD[LabeledPoint]:
    """Arrays as an RDD of MLlib's `LabeledPoint`.

    Example:

    ```python
    rdd = to_labeled_point(spark.sparkContext, x, y)
    ```

    Args:
        sc: `SparkContext`.
        features: Matrix, one row per example.
        labels: One number per example, or one one-hot row if `categorical`.
        categorical: Boolean, whether the labels are one-hot.

    Raises:
        ValueError: If the lengths differ, or a label is of another form.
    """
    features, labels = same_length(features, labels)
    return rows_rdd(sc, features, classes_of(labels) if categorical else numbers_of(labels), points)


def from_labeled_point(
    rdd: RDD[LabeledPoint], categorical: bool = False, nb_classes: int | None = None
) -> Arrays:
    """The features and labels of an RDD of `LabeledPoint`, collected.

    Example:

    ```python
    x, y = from_labeled_point(rdd, categorical=True, nb_classes=10)
    ```

    Args:
        rdd: RDD of `LabeledPoint`.
        categorical: Boolean, whether to make the labels one-hot.
        nb_classes: Integer, columns of one-hot labels. Defaults to the largest
            label plus one.

    Returns:
        Matrix of features and labels: int64 if all are whole numbers, float64
        otherwise, a matrix if `categorical`.

    Raises:
        ValueError: If there are no rows, or a label is no class.
    """
    parts = rdd.mapPartitions(ship(stacked_points)).collect()
    return joined("rdd", parts, categorical, nb_classes)


def lp_to_simple_rdd(
    lp_rdd: RDD[LabeledPoint], categorical: bool = False, nb_classes: int | None = None
) -> RDD[Any]:
    """An RDD of `LabeledPoint` as an RDD of `(x, y)` rows.

    Example:

    ```python
    rows = lp_to_simple_rdd(labeled_points, categorical=True, nb_classes=10)
    ```

    Args:
        lp_rdd: RDD of `LabeledPoint`.
        categorical: Boolean, whether to make the labels one-hot.
        nb_classes: Integer, length of one-hot labels. Defaults to the largest
            label plus one, which takes a job to find.

    Raises:
        ValueError: If there are no rows to find it by.
    """
    if categorical and not nb_classes:
        nb_classes = classes_in("lp_rdd", lp_rdd.mapPartitions(ship(largest_of_points)).collect())
    return lp_rdd.mapPartitions(ship(point_rows, nb_classes if categorical else None))


def encode_label(label: float, nb_classes: int) -> np.ndarray:
    """The one-hot vector of a class.

    Example:

    ```python
    encode_label(2, nb_classes=4)  # array([0., 0., 1., 0.])
    ```

    Args:
        label: The class, a whole number from 0 to `nb_classes - 1`.
        nb_classes: Integer, length of the vector.

    Raises:
        ValueError: If the label is no such number.
    """
    return encode_labels(np.asarray([label]), nb_classes)[0]


def to_data_frame(
    sc: SparkContext,
    features: np.ndarray | Sequence[Any],
    labels: np.ndarray | Sequence[Any],
    categorical: bool = False,
) -> DataFrame:
    """Arrays as a DataFrame with the columns `features` (MLlib vectors) and `label` (double).

    `pyspark.mllib.util.MLUtils.convertVectorColumnsToML` makes the vectors ones
    that Spark ML's own stages take; kspark takes both.

    Example:

    ```python
    frame = to_data_frame(spark.sparkContext, x, y)
    ```

    Args:
        sc: `SparkContext`.
        features: Matrix, one row per example.
        labels: One number per example, or one one-hot row if `categorical`.
        categorical: Boolean, whether the labels are one-hot.

    Raises:
        ValueError: If the lengths differ, an example is not a vector, or a label is of
            another form.
    """
    matrix, numbers = same_length(np.asarray(features), np.asarray(labels))
    if matrix.ndim != 2:
        raise invalid("features", "a matrix", f"shape {matrix.shape}")
    numbers = classes_of(numbers) if categorical else numbers_of(numbers)
    return vector_frame(sc, matrix, numbers, VectorUDT())


def from_data_frame(
    df: DataFrame, categorical: bool = False, nb_classes: int | None = None
) -> Arrays:
    """The columns `features` and `label` of a DataFrame, collected.

    Example:

    ```python
    x, y = from_data_frame(frame, categorical=True, nb_classes=10)
    ```

    Args:
        df: DataFrame.
        categorical: As for `from_labeled_point`.
        nb_classes: As for `from_labeled_point`.

    Returns:
        As `from_labeled_point`.

    Raises:
        ValueError: If there are no rows, or a label is no class.
    """
    examples = examples_of(df, "features", "label", categorical)
    parts = examples.map_chunks(ship(chunk_arrays)).collect()
    return joined("df", parts, categorical, nb_classes)


def df_to_simple_rdd(
    df: DataFrame,
    categorical: bool = False,
    nb_classes: int | None = None,
    features_col: str = "features",
    label_col: str = "label",
) -> RDD[Any]:
    """A DataFrame as an RDD of `(x, y)` rows.

    Example:

    ```python
    rdd = df_to_simple_rdd(frame, categorical=True, nb_classes=10)
    ```

    Args:
        df: DataFrame.
        categorical: Boolean, whether to make the labels one-hot.
        nb_classes: Integer, length of one-hot labels. Defaults to the largest
            label plus one, which takes a job to find.
        features_col: String, column of vectors (of MLlib or Spark ML), arrays or numbers.
        label_col: String, column of labels.

    Raises:
        ValueError: If a column is missing or of another type, or there are no rows to find
            `nb_classes` by.
        TypeError: If the DataFrame is one of Spark Connect.
    """
    examples = examples_of(df, features_col, label_col, categorical)
    parts = examples.map_chunks(ship(chunk_arrays))
    if categorical and not nb_classes:
        largest = parts.mapPartitionsWithIndex(ship(largest_label)).collect()
        nb_classes = classes_in("df", largest)
    rows = parts.mapPartitionsWithIndex(ship(array_rows, nb_classes if categorical else None))
    if not isinstance(rows, RDD):
        raise invalid_type("df", "a DataFrame of a classic session: Spark Connect has no RDDs", df)
    return rows


def same_length(features: Any, labels: Any) -> tuple[Any, Any]:
    """Both, if they have the same number of rows."""
    if len(features) != len(labels):
        rule = f"as many as the {len(features)} rows of features"
        raise invalid("labels", rule, f"{len(labels)} rows")
    return features, labels


def classes_of(labels: Any) -> np.ndarray:
    """The classes of one-hot rows."""
    one_hot = np.asarray(labels)
    if one_hot.ndim != 2:
        rule = "one one-hot row per example when categorical=True"
        raise invalid("labels", rule, f"shape {one_hot.shape}")
    return one_hot.argmax(axis=1)


def numbers_of(labels: Any) -> np.ndarray:
    """Labels that are one number each."""
    numbers = np.asarray(labels)
    if numbers.size != len(numbers):
        rule = "one number per example (set categorical=True for one-hot rows)"
        raise invalid("labels", rule, f"shape {numbers.shape}")
    return numbers.reshape(len(numbers))


def classes_in(argument: str, largest: list[float]) -> int:
    """How many classes there are, by the largest label of each part of a data set."""
    if not largest:
        rule = "a data set with at least one row (or set nb_classes)"
        raise invalid(argument, rule, "0 rows")
    return int(max(largest)) + 1


def joined(argument: str, parts: list[Arrays], categorical: bool, nb_classes: int | None) -> Arrays:
    """Parts of features and labels as one, with labels as they were asked for."""
    if not parts:
        raise invalid(argument, "a data set with at least one row", "0 rows")
    features, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if categorical:
        return features, encode_labels(labels, nb_classes or int(labels.max()) + 1)
    whole = labels.astype(np.int64)
    return features, whole if (whole == labels).all() else labels


def examples_of(df: DataFrame, features_col: str, label_col: str, categorical: bool) -> Examples:
    """Examples of two columns, in the types they have.

    Raises:
        ValueError: If a column is missing, or the labels are arrays that are to be encoded.
    """
    spark = SparkSession.builder.getOrCreate()
    examples = adapt(spark, df, spec=AS_FOUND, columns=Columns(features_col, label_col))
    kind = df.select(chosen_column(df, label_col, label_col)).schema.fields[0].dataType
    if categorical and (isinstance(kind, ArrayType) or is_vector_type(kind)):
        rule = f"a DataFrame with class numbers in {label_col!r} when categorical=True"
        raise invalid("df", rule, kind.simpleString())
    return examples
