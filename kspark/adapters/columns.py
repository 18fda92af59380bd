"""Convert Arrow columns to dense NumPy arrays, without a loop over rows.

The columns may have numbers, booleans, decimals, text, bytes, lists of any depth (of equal
length, unless rows may have different shapes), fixed shape tensors, and dense and sparse vectors
of `pyspark.ml` and `pyspark.mllib`, which are structs of (type, size, indices, values) in Arrow.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kspark.adapters.conform import Place, advised
from kspark.files.types import VECTOR_FIELDS, is_list
from kspark.shards.ragged import split, with_nulls

DENSE = 1


def to_numpy(column: pa.Array, place: Place, *, is_loose: bool = False) -> np.ndarray:
    """Convert a column to an array whose first axis is the row.

    Args:
        column: `pyarrow.Array`, sliced or not.
        place: `Place` of the column, for errors.
        is_loose: Boolean, whether rows may have different lengths, and be null. Defaults to
            `False`.

    Returns:
        An array of numbers, or an object array of `str` or `bytes`. If rows have different
        lengths, or are null, an object array of one value per row.

    Raises:
        ValueError: If there are nulls, rows of different lengths, or values
            that are neither numbers nor text nor bytes.
    """
    kind = column.type
    if column.null_count and is_loose:
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        return with_nulls(to_numpy(column.drop_null(), place, is_loose=True), valid)
    refuse_nulls(column, place)
    if isinstance(kind, pa.BaseExtensionType):
        tensor = getattr(column, "to_numpy_ndarray", None)
        storage = column.storage
        return tensor() if tensor is not None else to_numpy(storage, place, is_loose=is_loose)
    if pa.types.is_dictionary(kind):
        return to_numpy(column.dictionary_decode(), place, is_loose=is_loose)
    if is_vector(kind):
        return vectors(column, place)
    if is_list(kind):
        return lists(column, place, is_loose=is_loose)
    return scalars(column, place)


def is_vector(kind: pa.DataType) -> bool:
    """Whether a type is Arrow's struct for Spark's vectors."""
    return pa.types.is_struct(kind) and [f.name for f in kind] == VECTOR_FIELDS


def refuse_nulls(column: pa.Array, place: Place) -> None:
    """Raise `ValueError` if there is a row without a value."""
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise advised(place.error("no nulls", "null", row), "null")


def scalars(column: pa.Array, place: Place) -> np.ndarray:
    """Convert a column of numbers, booleans or text."""
    kind = column.type
    if pa.types.is_decimal(kind):
        column = pc.cast(column, pa.float64())
    elif not is_plain(kind):
        raise place.error("numbers or text", f"values of type {kind}")
    return column.to_numpy(zero_copy_only=False)


def is_plain(kind: pa.DataType) -> bool:
    """Whether NumPy has a dtype for the values, or they are text or bytes."""
    checks = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    return any(check(kind) for check in checks)


def lists(column: pa.Array, place: Place, *, is_loose: bool = False) -> np.ndarray:
    """Convert a column of lists, nested or not; of equal lengths, unless they may differ."""
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if is_loose and len(lengths) and (lengths != lengths[0]).any():
        return split(to_numpy(column.flatten(), place, is_loose=True), lengths)
    width = uniform(lengths, place)
    inside = replace(place, items=place.items * max(1, width))
    inner = to_numpy(column.flatten(), inside, is_loose=is_loose)
    return inner.reshape(len(column), width, *inner.shape[1:])


def uniform(lengths: np.ndarray, place: Place) -> int:
    """Return the length of the rows.

    Raises:
        ValueError: If the rows have different lengths.
    """
    width = int(lengths[0]) if len(lengths) else 0
    if (lengths != width).any():
        row = int(np.flatnonzero(lengths != width)[0])
        rule = f"examples of one length, {width} as in row {place.first_row}"
        raise advised(place.error(rule, f"length {lengths[row]}", row), "lengths")
    return width


def vectors(column: pa.StructArray, place: Place) -> np.ndarray:
    """Convert a column of Spark vectors to a matrix of float64."""
    values = column.field("values")
    dense = column.field("type").to_numpy(zero_copy_only=False) == DENSE
    if dense.all():
        return lists(values, place)
    counts = pc.list_value_length(values).to_numpy(zero_copy_only=False)
    sizes = pc.fill_null(column.field("size"), 0).to_numpy(zero_copy_only=False)
    width = uniform(np.where(dense, counts, sizes), place)
    out = np.zeros((len(column), width))
    flat = values.flatten().to_numpy(zero_copy_only=False)
    of_dense = np.repeat(dense, counts)
    out[dense] = flat[of_dense].reshape(-1, width)
    rows = np.repeat(np.flatnonzero(~dense), counts[~dense])
    places = column.field("indices").flatten().to_numpy(zero_copy_only=False)
    out[rows, places] = flat[~of_dense]
    return out
