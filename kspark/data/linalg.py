"""Elephas' conversions between arrays and MLlib's matrices and vectors."""

from __future__ import annotations

import numpy as np
from pyspark.mllib.linalg import Matrices, Matrix, Vector, Vectors

from kspark.data.checks import check_has
from kspark.errors import Described, invalid


def to_matrix(np_array: np.ndarray) -> Matrix:
    """Convert an array of two axes to an MLlib matrix.

    Example:

    ```python
    matrix = to_matrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
    ```

    Args:
        np_array: Array of two axes.

    Raises:
        ValueError: If the array has another number of axes.
    """
    array = np.asarray(np_array)
    if array.ndim != 2:
        raise invalid("np_array", "an array of two axes", Described(f"shape {array.shape}"))
    # MLlib's matrices are in column-major order.
    rows, columns = array.shape
    return Matrices.dense(rows, columns, array.ravel(order="F"))


def from_matrix(matrix: Matrix) -> np.ndarray:
    """Convert an MLlib matrix, dense or sparse, to an array.

    Example:

    ```python
    array = from_matrix(Matrices.dense(2, 2, [1, 3, 2, 4]))  # [[1, 2], [3, 4]]
    ```

    Args:
        matrix: `pyspark.mllib.linalg.Matrix`.

    Raises:
        TypeError: If it is no matrix.
    """
    check_has("matrix", matrix, "toArray", "a matrix, such as `to_matrix(array)` makes")
    return matrix.toArray()


def to_vector(np_array: np.ndarray) -> Vector:
    """Convert an array of one axis to an MLlib vector.

    Example:

    ```python
    vector = to_vector(np.array([1.0, 2.0]))
    ```

    Args:
        np_array: Array of one axis.

    Raises:
        ValueError: If the array has another number of axes.
    """
    array = np.asarray(np_array)
    if array.ndim != 1:
        raise invalid("np_array", "an array of one axis", Described(f"shape {array.shape}"))
    return Vectors.dense(array)


def from_vector(vector: Vector) -> np.ndarray:
    """Convert an MLlib vector, dense or sparse, to an array.

    Example:

    ```python
    array = from_vector(Vectors.sparse(3, {1: 5.0}))  # [0, 5, 0]
    ```

    Args:
        vector: `pyspark.mllib.linalg.Vector`.

    Raises:
        TypeError: If it is no vector.
    """
    check_has("vector", vector, "toArray", "a vector, such as `to_vector(array)` makes")
    return vector.toArray()
