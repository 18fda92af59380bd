"""Conversions between arrays, RDDs, DataFrames and MLlib's types, as Elephas users know them.

`SparkModel.fit` takes arrays, RDDs and DataFrames as they are; these are for
code that already works with them. Labels are never cut to integers, matrices
keep their rows and columns, and no temporary view is left in the session.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pyspark import RDD, SparkContext
from pyspark.mllib.linalg import Matrices, Matrix, Vector, Vectors, VectorUDT
from pyspark.mllib.regression import LabeledPoint
from pyspark.sql import DataFrame, SparkSession

from kspark.adapters import Columns, Examples, adapt
from kspark.adapters.slices import rows_rdd, vector_frame
from kspark.bootstrap import ship
from kspark.errors import invalid, invalid_type
from kspark.shards import ArraySpec, Chunk, InputSpec

Arrays = tuple[np.ndarray, np.ndarray]

AS_FOUND = InputSpec((ArraySpec("features"),), (ArraySpec("label"),), floatx="float64")


def to_simple_rdd(
    sc: SparkContext,
    features: np.ndarray | Sequence[Any],
    labels: np.ndarray | Sequence[Any],
) -> RDD[Any]:
    """Arrays as an RDD of `(x, y)` rows.

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

    Args:
        sc: `SparkContext`.
        features: Matrix, one row per example.
        labels: One number per example, or one one-hot row if `categorical`.
        categorical: Boolean, whether the labels are one-hot.

    Raises:
        ValueError: If the lengths differ.
    """
    features, labels = same_length(features, labels)
    return rows_rdd(sc, features, classes_of(labels) if categorical else labels, points)


def from_labeled_point(
    rdd: RDD[LabeledPoint], categorical: bool = False, nb_classes: int | None = None
) -> Arrays:
    """The features and labels of an RDD of `LabeledPoint`, collected.

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
    return joined(parts, categorical, nb_classes)


def lp_to_simple_rdd(
    lp_rdd: RDD[LabeledPoint], categorical: bool = False, nb_classes: int | None = None
) -> RDD[Any]:
    """An RDD of `LabeledPoint` as an RDD of `(x, y)` rows.

    Args:
        lp_rdd: RDD of `LabeledPoint`.
        categorical: Boolean, whether to make the labels one-hot.
        nb_classes: Integer, length of one-hot labels. Defaults to the largest
            label plus one, which takes a job to find.
    """
    if categorical and not nb_classes:
        nb_classes = int(lp_rdd.map(ship(label_of)).max()) + 1
    return lp_rdd.mapPartitions(ship(point_rows, nb_classes if categorical else None))


def encode_label(label: float, nb_classes: int) -> np.ndarray:
    """The one-hot vector of a class.

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

    Args:
        sc: `SparkContext`.
        features: Matrix, one row per example.
        labels: One number per example, or one one-hot row if `categorical`.
        categorical: Boolean, whether the labels are one-hot.

    Raises:
        ValueError: If the lengths differ, or an example is not a vector.
    """
    matrix, numbers = same_length(np.asarray(features), np.asarray(labels))
    if matrix.ndim != 2:
        raise invalid("features", "a matrix", f"shape {matrix.shape}")
    numbers = classes_of(numbers) if categorical else numbers.reshape(len(numbers))
    return vector_frame(sc, matrix, numbers, VectorUDT())


def from_data_frame(
    df: DataFrame, categorical: bool = False, nb_classes: int | None = None
) -> Arrays:
    """The columns `features` and `label` of a DataFrame, collected.

    Args:
        df: DataFrame.
        categorical: As for `from_labeled_point`.
        nb_classes: As for `from_labeled_point`.

    Returns:
        As `from_labeled_point`.

    Raises:
        ValueError: If there are no rows, or a label is no class.
    """
    parts = examples_of(df, "features", "label").map_chunks(ship(chunk_arrays)).collect()
    return joined(parts, categorical, nb_classes)


def df_to_simple_rdd(
    df: DataFrame,
    categorical: bool = False,
    nb_classes: int | None = None,
    features_col: str = "features",
    label_col: str = "label",
) -> RDD[Any]:
    """A DataFrame as an RDD of `(x, y)` rows.

    Args:
        df: DataFrame.
        categorical: Boolean, whether to make the labels one-hot.
        nb_classes: Integer, length of one-hot labels. Defaults to the largest
            label plus one, which takes a job to find.
        features_col: String, column of vectors (of MLlib or Spark ML), arrays or numbers.
        label_col: String, column of labels.

    Raises:
        ValueError: If a column is missing or of another type.
        TypeError: If the DataFrame is one of Spark Connect.
    """
    parts = examples_of(df, features_col, label_col).map_chunks(ship(chunk_arrays))
    if categorical and not nb_classes:
        nb_classes = int(max(parts.mapPartitionsWithIndex(ship(largest_label)).collect())) + 1
    rows = parts.mapPartitionsWithIndex(ship(array_rows, nb_classes if categorical else None))
    if not isinstance(rows, RDD):
        raise invalid_type("df", "a DataFrame of a classic session: Spark Connect has no RDDs", df)
    return rows


def to_matrix(np_array: np.ndarray) -> Matrix:
    """An array of two axes as an MLlib matrix.

    Raises:
        ValueError: If it has another number of axes.
    """
    array = np.asarray(np_array)
    if array.ndim != 2:
        raise invalid("np_array", "an array of two axes", f"shape {array.shape}")
    # MLlib's matrices are laid out by column.
    rows, columns = array.shape
    return Matrices.dense(rows, columns, array.ravel(order="F"))


def from_matrix(matrix: Matrix) -> np.ndarray:
    """An MLlib matrix, dense or sparse, as an array."""
    return matrix.toArray()


def to_vector(np_array: np.ndarray) -> Vector:
    """An array of one axis as an MLlib vector.

    Raises:
        ValueError: If it has another number of axes.
    """
    array = np.asarray(np_array)
    if array.ndim != 1:
        raise invalid("np_array", "an array of one axis", f"shape {array.shape}")
    return Vectors.dense(array)


def from_vector(vector: Vector) -> np.ndarray:
    """An MLlib vector, dense or sparse, as an array."""
    return vector.toArray()


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


def encode_labels(labels: np.ndarray, nb_classes: int) -> np.ndarray:
    """One-hot rows of classes."""
    classes = labels.astype(np.int64)
    wrong = (classes != labels) | (classes < 0) | (classes >= nb_classes)
    if wrong.any():
        rule = f"a class, a whole number from 0 to {nb_classes - 1}"
        raise invalid("label", rule, labels[wrong][0])
    return np.eye(nb_classes)[classes]


def joined(parts: list[Arrays], categorical: bool, nb_classes: int | None) -> Arrays:
    """Parts of features and labels as one, with labels as they were asked for."""
    if not parts:
        raise invalid("data", "a data set with at least one row", "0 rows")
    features, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if categorical:
        return features, encode_labels(labels, nb_classes or int(labels.max()) + 1)
    whole = labels.astype(np.int64)
    return features, whole if (whole == labels).all() else labels


def examples_of(df: DataFrame, features_col: str, label_col: str) -> Examples:
    """Examples of two columns, in the types they have."""
    spark = SparkSession.builder.getOrCreate()
    return adapt(spark, df, spec=AS_FOUND, columns=Columns(features_col, label_col))


# What follows runs on the executors.


def pairs(features: Any, labels: Any) -> Iterator[Any]:
    """Rows `(x, y)`."""
    return zip(features, labels, strict=True)


def points(features: Any, labels: Any) -> Iterator[LabeledPoint]:
    """Rows as `LabeledPoint`."""
    for x, y in zip(features, labels, strict=True):
        yield LabeledPoint(float(np.asarray(y).reshape(())), to_vector(x))


def label_of(point: LabeledPoint) -> float:
    """The label of a `LabeledPoint`."""
    return point.label


def stacked_points(rows: Iterator[LabeledPoint]) -> Iterator[Arrays]:
    """One partition's features and labels, if it has any."""
    found = [(p.features.toArray(), p.label) for p in rows]
    if found:
        yield np.stack([x for x, _ in found]), np.array([y for _, y in found])


def point_rows(nb_classes: int | None, rows: Iterator[LabeledPoint]) -> Iterator[Any]:
    """Rows `(x, y)` of one partition of `LabeledPoint`, one-hot if `nb_classes` is given."""
    for point in rows:
        label = point.label if nb_classes is None else encode_label(point.label, nb_classes)
        yield point.features.toArray(), label


def chunk_arrays(index: int, chunks: Iterator[Chunk]) -> Iterator[Arrays]:
    """Features and labels of one partition, chunk by chunk."""
    for chunk in chunks:
        yield chunk.x[0], chunk.y[0].astype(np.float64)


def largest_label(index: int, parts: Iterator[Arrays]) -> Iterator[float]:
    """The largest labels of the parts of one partition."""
    for _, labels in parts:
        yield float(labels.max())


def array_rows(nb_classes: int | None, index: int, parts: Iterator[Arrays]) -> Iterator[Any]:
    """Rows `(x, y)` of one partition, one-hot if `nb_classes` is given."""
    for features, labels in parts:
        targets = labels if nb_classes is None else encode_labels(labels, nb_classes)
        yield from zip(features, targets, strict=True)
