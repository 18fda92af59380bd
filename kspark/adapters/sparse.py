"""Sparse rows of other libraries as `SparseRows`: matrices of SciPy, vectors of Spark.

SciPy need not be installed, so its classes are known by their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kspark.adapters.columns import DENSE, is_vector, refuse_nulls, to_numpy, uniform
from kspark.adapters.conform import Place, stack
from kspark.files.types import is_list
from kspark.shards import Features, SparseRows
from kspark.shards.sparse import POSITION, saves_memory, sparse_nbytes, starts_of

VALUE = np.dtype(np.float64)
"""The dtype of the values of Spark's vectors."""


def is_matrix(value: object) -> bool:
    """Whether a value is a sparse matrix or array of SciPy."""
    modules = (f"{kind.__module__}." for kind in type(value).__mro__)
    return hasattr(value, "tocsr") and any(m.startswith("scipy.sparse.") for m in modules)


def rows_of_matrix(matrix: Any, place: Place) -> SparseRows:
    """Return the rows of a sparse matrix of SciPy, in its memory if it is a CSR matrix.

    Raises:
        ValueError: If it has not two axes, or too many columns.
    """
    if matrix.ndim != 2:
        raise place.error("a sparse matrix, with one row per example", f"shape {matrix.shape}")
    if matrix.shape[1] > np.iinfo(POSITION).max:
        raise place.error("rows of fewer than 2^31 elements", f"shape {matrix.shape}")
    rows = matrix.tocsr()
    if not rows.has_canonical_format:  # An entry that is there twice is the sum of both.
        rows = rows.copy()
        rows.sum_duplicates()
    count = int(rows.indptr[-1])
    return SparseRows(
        rows.data[:count],
        rows.indices[:count].astype(POSITION, copy=False),
        rows.indptr.astype(np.int64, copy=False),
        (matrix.shape[1],),
    )


def by_rows(value: Any) -> Any:
    """Return sparse matrices of SciPy as CSR matrices, also those in a list or a dictionary.

    The other formats have no slices of rows, or are a dictionary themselves. Any other value is
    returned unchanged.
    """
    if is_matrix(value):
        return value.tocsr() if value.ndim == 2 else value
    if isinstance(value, Mapping) and any(map(is_matrix, value.values())):
        return {name: by_rows(part) for name, part in value.items()}
    if isinstance(value, list | tuple) and any(map(is_matrix, value)):
        return [by_rows(part) for part in value]
    return value


def compressed(value: Any, place: Place) -> Any:
    """Return a sparse matrix, or a list of one, as its rows, and a list of rows stacked.

    Rows are matrices of one row, or vectors. Other values are returned unchanged.

    Raises:
        ValueError: As for `rows_of_matrix` and `stack_rows`.
    """
    if isinstance(value, list | tuple):
        if len(value) == 1 and is_matrix(value[0]):
            value = value[0]
        elif any(hasattr(v, "toArray") or is_matrix(v) for v in value):
            return stack_rows(value, place)
    return rows_of_matrix(value, place) if is_matrix(value) else value


def with_first_rows(value: Any) -> Any:
    """Replace each sparse matrix of a value, list or dictionary by its first row, as an array."""
    if is_matrix(value):
        return value.tocsr()[:1].toarray()
    if isinstance(value, Mapping) and any(map(is_matrix, value.values())):
        return {name: with_first_rows(part) for name, part in value.items()}
    if isinstance(value, list | tuple) and any(map(is_matrix, value)):
        return [with_first_rows(part) for part in value]
    return value


def to_rows(column: pa.Array, place: Place, *, is_loose: bool = False) -> Features:
    """Convert a column as `to_numpy` does, but to `SparseRows` if that takes much less memory.

    Args:
        column: `pyarrow.Array`, sliced or not.
        place: `Place` of the column, for errors.
        is_loose: As for `to_numpy`. Defaults to `False`.

    Raises:
        ValueError: As for `to_numpy`, and if a vector has an index that is not below its size.
    """
    if not is_vector(column.type) or (is_loose and column.null_count):
        return to_numpy(column, place, is_loose=is_loose)
    refuse_nulls(column, place)
    if not stays_sparse(column):
        return to_numpy(column, place)
    values = column.field("values")
    is_dense = column.field("type").to_numpy(zero_copy_only=False) == DENSE
    counts = pc.list_value_length(values).to_numpy(zero_copy_only=False)
    sizes = pc.fill_null(column.field("size"), 0).to_numpy(zero_copy_only=False)
    width = uniform(np.where(is_dense, counts, sizes), place)
    data = values.flatten().to_numpy(zero_copy_only=False)
    places = np.empty(len(data), POSITION)
    of_dense = np.repeat(is_dense, counts)
    places[of_dense] = np.tile(np.arange(width, dtype=POSITION), int(is_dense.sum()))
    places[~of_dense] = column.field("indices").flatten().to_numpy(zero_copy_only=False)
    rows = SparseRows(data, places, starts_of(counts), (width,))
    check_positions(rows, place)
    return rows


def check_positions(rows: SparseRows, place: Place) -> None:
    """Refuse an index that is not within its row.

    Raises:
        ValueError: If there is one.
    """
    wrong = (rows.indices < 0) | (rows.indices >= rows.row_shape[0])
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        rule = f"vectors with indices from 0 to {rows.row_shape[0] - 1}"
        raise place.error(rule, f"index {rows.indices[at]}", rows.row_of(at))


def stays_sparse(column: pa.StructArray) -> bool:
    """Whether a column of vectors takes much less memory as `SparseRows`."""
    width = pc.max(column.field("size")).as_py() or 0
    return saves_memory(len(column), width, entries_of(column), VALUE.itemsize)


def entries_of(column: pa.StructArray) -> int:
    """Return the number of values of all vectors of a column."""
    return pc.sum(pc.list_value_length(column.field("values"))).as_py() or 0


def row_bytes(column: pa.Array, *, dense: bool = False) -> int:
    """Estimate the bytes per row of `to_rows(column)`; with `dense`, of `to_numpy(column)`."""
    rows, kind = max(1, len(column)), column.type
    if is_list(kind) and pa.types.is_nested(kind.value_type):  # vectors in arrays become dense
        inner = column.flatten()
        return row_bytes(inner, dense=True) * len(inner) // rows
    if not is_vector(kind):
        return int(column.nbytes // rows)
    if not dense and stays_sparse(column):
        return sparse_nbytes(rows, entries_of(column), VALUE.itemsize) // rows
    width = pc.max(column.field("size")).as_py() or 0
    return max(VALUE.itemsize * width, column.nbytes // rows)


def stack_rows(values: Sequence[Any], place: Place, *, is_loose: bool = False) -> Features:
    """Stack one value per row as `stack` does, sparse ones to `SparseRows` if that takes less.

    Sparse values are Spark's sparse vectors, among which there may be dense ones, and matrices of
    SciPy with one row.

    Args:
        values: Sequence with at least one row.
        place: `Place` of the rows, for errors.
        is_loose: Boolean, whether rows may have different shapes, and be null. Defaults to `False`.

    Raises:
        ValueError: If the rows have different shapes.
    """
    if all(map(is_matrix, values)):
        rows = [rows_of_matrix(value, place) for value in values]
        if any(len(row) != 1 for row in rows):
            raise place.error("sparse matrices of one row", "a matrix of several rows")
        widths = np.array([row.row_shape[0] for row in rows])
        parts = [(row.indices, row.data) for row in rows]
    elif any(map(is_sparse_vector, values)) and all(hasattr(v, "toArray") for v in values):
        widths = np.array([value.size for value in values])
        parts = [entries(value) for value in values]
    else:
        return stack(values, place, is_loose=is_loose)
    width = uniform(widths, place)
    indices = np.concatenate([np.asarray(part[0], POSITION) for part in parts])
    data = np.concatenate([np.asarray(part[1]) for part in parts])
    found = SparseRows(data, indices, starts_of(np.array([len(p[1]) for p in parts])), (width,))
    return found if found.saves_memory else found.toarray()


def is_sparse_vector(value: Any) -> bool:
    """Whether a value is a sparse vector of Spark."""
    return type(value).__module__.startswith("pyspark.") and type(value).__name__ == "SparseVector"


def entries(vector: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions and values of a vector of Spark, sparse or dense."""
    if is_sparse_vector(vector):
        return vector.indices, vector.values
    values = vector.toArray()
    return np.arange(len(values), dtype=POSITION), values
