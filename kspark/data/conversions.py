"""Elephas' conversions between arrays, RDDs, DataFrames and MLlib's types.

They are for programs written for Elephas. `SparkModel.fit` takes arrays, RDDs and DataFrames
without a conversion. Unlike in Elephas, labels are never truncated to integers, matrices are
not transposed, and no temporary view stays in the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.mllib.linalg import VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType

from kspark.adapters import Columns, Examples, adapt
from kspark.adapters.column_types import is_vector_type
from kspark.adapters.dataframe import chosen_column
from kspark.adapters.slices import rows_rdd, vector_frame
from kspark.classic import RDD, SparkContext
from kspark.cluster.bootstrap import ship
from kspark.data.checks import check_has, check_kind
from kspark.errors import Described, invalid, invalid_type
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

if TYPE_CHECKING:
    from pyspark.mllib.regression import LabeledPoint

POINTS = "an RDD of LabeledPoint, such as `to_labeled_point(sc, x, y)` makes"
FRAME = "a Spark DataFrame; make one with `spark.createDataFrame`"
ROWS = "an array or a sequence with one row per example"

AS_FOUND = InputSpec((ArraySpec("features"),), (ArraySpec("label"),), floatx="float64")


def to_simple_rdd(
    sc: SparkContext,
    features: np.ndarray | Sequence[Any],
    labels: np.ndarray | Sequence[Any],
) -> RDD[Any]:
    """Convert arrays to an RDD of `(x, y)` rows.

    Example:

    ```python
    rdd = to_simple_rdd(spark.sparkContext, x, y)
    spark_model.fit(rdd, epochs=5)
    ```

    Args:
        sc: `SparkContext`.
        features: Array or sequence, one row per example.
        labels: Array or sequence of one label per example.

    Returns:
        RDD of pairs, in the same order.

    Raises:
        ValueError: If the lengths differ.
    """
    check_context(sc)
    return rows_rdd(sc, *same_length(features, labels), pairs)


def to_labeled_point(
    sc: SparkContext,
    features: np.ndarray | Sequence[Any],
    labels: np.ndarray | Sequence[Any],
    categorical: bool = False,
) -> RDD[LabeledPoint]:
    """Convert arrays to an RDD of MLlib's `LabeledPoint`.

    Example:

    ```python
    rdd = to_labeled_point(spark.sparkContext, x, y)
    ```

    Args:
        sc: `SparkContext`.
        features: Matrix, one row per example.
        labels: One number per example, or one one-hot row if `categorical`.
        categorical: Boolean, whether the labels are one-hot. Defaults to `False`.

    Raises:
        ValueError: If the lengths differ, or a label is of another form.
    """
    check_context(sc)
    features, labels = same_length(features, labels)
    return rows_rdd(sc, features, classes_of(labels) if categorical else numbers_of(labels), points)


def from_labeled_point(
    rdd: RDD[LabeledPoint], categorical: bool = False, nb_classes: int | None = None
) -> Arrays:
    """Collect the features and labels of an RDD of `LabeledPoint`.

    Example:

    ```python
    x, y = from_labeled_point(rdd, categorical=True, nb_classes=10)
    ```

    Args:
        rdd: RDD of `LabeledPoint`.
        categorical: Boolean, whether to one-hot encode the labels. Defaults to `False`.
        nb_classes: Integer, length of a one-hot label. Defaults to `None`, the largest
            label plus one.

    Returns:
        A pair: a matrix of features, and the labels. With `categorical`, the labels are a
        one-hot matrix; otherwise a vector of int64 if all are whole numbers, else of float64.

    Raises:
        ValueError: If there are no rows, or a label is not a class number.
    """
    check_kind("rdd", rdd, RDD, POINTS)
    parts = rdd.mapPartitions(ship(stacked_points)).collect()
    return joined("rdd", parts, categorical, nb_classes)


def lp_to_simple_rdd(
    lp_rdd: RDD[LabeledPoint], categorical: bool = False, nb_classes: int | None = None
) -> RDD[Any]:
    """Convert an RDD of `LabeledPoint` to an RDD of `(x, y)` rows.

    Example:

    ```python
    rows = lp_to_simple_rdd(labeled_points, categorical=True, nb_classes=10)
    ```

    Args:
        lp_rdd: RDD of `LabeledPoint`.
        categorical: Boolean, whether to one-hot encode the labels. Defaults to `False`.
        nb_classes: Integer, length of a one-hot label. Defaults to `None`, the largest
            label plus one, which a Spark job determines.

    Raises:
        ValueError: If `nb_classes` must be determined and there are no rows.
    """
    check_kind("lp_rdd", lp_rdd, RDD, POINTS)
    if categorical and not nb_classes:
        nb_classes = classes_in("lp_rdd", lp_rdd.mapPartitions(ship(largest_of_points)).collect())
    return lp_rdd.mapPartitions(ship(point_rows, nb_classes if categorical else None))


def encode_label(label: float, nb_classes: int) -> np.ndarray:
    """Return the one-hot vector of a class.

    Example:

    ```python
    encode_label(2, nb_classes=4)  # array([0., 0., 1., 0.])
    ```

    Args:
        label: The class, a whole number from 0 to `nb_classes - 1`.
        nb_classes: Integer, length of the vector.

    Raises:
        ValueError: If the label is not such a number.
    """
    check_kind("label", label, (Number, np.bool_), "a number")
    return encode_labels(np.asarray([label]), nb_classes)[0]


def to_data_frame(
    sc: SparkContext,
    features: np.ndarray | Sequence[Any],
    labels: np.ndarray | Sequence[Any],
    categorical: bool = False,
) -> DataFrame:
    """Convert arrays to a DataFrame with columns `features` (MLlib vectors) and `label` (double).

    Spark ML's own stages take other vectors, to which
    `pyspark.mllib.util.MLUtils.convertVectorColumnsToML` converts these. kspark takes both.

    Example:

    ```python
    frame = to_data_frame(spark.sparkContext, x, y)
    ```

    Args:
        sc: `SparkContext`.
        features: Matrix, one row per example.
        labels: One number per example, or one one-hot row if `categorical`.
        categorical: Boolean, whether the labels are one-hot. Defaults to `False`.

    Raises:
        ValueError: If the lengths differ, an example is not a vector, or a label is of
            another form.
    """
    check_context(sc)
    matrix, numbers = same_length(np.asarray(features), np.asarray(labels))
    if matrix.ndim != 2:
        raise invalid("features", "a matrix", Described(f"shape {matrix.shape}"))
    numbers = classes_of(numbers) if categorical else numbers_of(numbers)
    return vector_frame(sc, matrix, numbers, VectorUDT())


def from_data_frame(
    df: DataFrame, categorical: bool = False, nb_classes: int | None = None
) -> Arrays:
    """Collect the columns `features` and `label` of a DataFrame.

    Example:

    ```python
    x, y = from_data_frame(frame, categorical=True, nb_classes=10)
    ```

    Args:
        df: DataFrame.
        categorical: As for `from_labeled_point`.
        nb_classes: As for `from_labeled_point`.

    Returns:
        As for `from_labeled_point`.

    Raises:
        ValueError: If there are no rows, or a label is not a class number.
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
    """Convert a DataFrame to an RDD of `(x, y)` rows.

    Example:

    ```python
    rdd = df_to_simple_rdd(frame, categorical=True, nb_classes=10)
    ```

    Args:
        df: DataFrame.
        categorical: Boolean, whether to one-hot encode the labels. Defaults to `False`.
        nb_classes: Integer, length of a one-hot label. Defaults to `None`, the largest
            label plus one, which a Spark job determines.
        features_col: String, column of vectors (of MLlib or Spark ML), arrays or numbers.
            Defaults to `"features"`.
        label_col: String, column of labels. Defaults to `"label"`.

    Raises:
        ValueError: If a column is missing or has another type, or `nb_classes` must be
            determined and there are no rows.
        TypeError: If the DataFrame belongs to Spark Connect.
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


def check_context(sc: Any) -> None:
    """Check that an argument is a `SparkContext`."""
    check_kind("sc", sc, SparkContext, "a SparkContext, such as `spark.sparkContext`")


def same_length(features: Any, labels: Any) -> tuple[Any, Any]:
    """Check that features and labels have the same number of rows, and return both."""
    check_has("features", features, "__len__", ROWS)
    check_has("labels", labels, "__len__", ROWS)
    if len(features) != len(labels):
        rule = f"as many as the {len(features)} rows of features"
        raise invalid("labels", rule, Described(f"{len(labels)} rows"))
    return features, labels


def classes_of(labels: Any) -> np.ndarray:
    """Return the class numbers of one-hot rows."""
    one_hot = np.asarray(labels)
    if one_hot.ndim != 2:
        rule = "one one-hot row per example when categorical=True"
        raise invalid("labels", rule, Described(f"shape {one_hot.shape}"))
    return one_hot.argmax(axis=1)


def numbers_of(labels: Any) -> np.ndarray:
    """Return labels of one number per example as a vector."""
    numbers = np.asarray(labels)
    if numbers.size != len(numbers):
        rule = "one number per example (set categorical=True for one-hot rows)"
        raise invalid("labels", rule, Described(f"shape {numbers.shape}"))
    return numbers.reshape(len(numbers))


def classes_in(argument: str, largest: list[float]) -> int:
    """Return the number of classes, from the largest label of each part of a data set."""
    if not largest:
        rule = "a data set with at least one row (or set nb_classes)"
        raise invalid(argument, rule, "0 rows")
    return int(max(largest)) + 1


def joined(argument: str, parts: list[Arrays], categorical: bool, nb_classes: int | None) -> Arrays:
    """Join parts of features and labels, and one-hot encode the labels if `categorical`."""
    if not parts:
        raise invalid(argument, "a data set with at least one row", "0 rows")
    features, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if categorical:
        return features, encode_labels(labels, nb_classes or int(labels.max()) + 1)
    whole = labels.astype(np.int64)
    return features, whole if (whole == labels).all() else labels


def examples_of(df: DataFrame, features_col: str, label_col: str, categorical: bool) -> Examples:
    """Make examples of two columns, in their own types.

    Raises:
        ValueError: If a column is missing, or `categorical` is set and the labels are arrays.
    """
    check_kind("df", df, DataFrame, FRAME)
    spark = SparkSession.builder.getOrCreate()
    examples = adapt(spark, df, spec=AS_FOUND, columns=Columns(features_col, label_col))
    kind = df.select(chosen_column(df, label_col, label_col)).schema.fields[0].dataType
    if categorical and (isinstance(kind, ArrayType) or is_vector_type(kind)):
        rule = f"a DataFrame with class numbers in {label_col!r} when categorical=True"
        raise invalid("df", rule, kind.simpleString())
    return examples
