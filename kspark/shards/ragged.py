"""Rows of different shapes, and nulls: object arrays with one value per row.

No model takes them. A function of the user gets them, and makes the model's inputs of them, for
example by padding. A value is a number, a text, bytes, an array, or `None` for a null; an array may
again have arrays of different shapes, or `None`, as its elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kspark.shards.spec import BYTES, RAGGED, TEXT

SHAPES = "shapes"
"""The column of shapes beside flat values."""


def one_per_row(values: Iterable[Any], count: int) -> np.ndarray:
    """Return an object array with one value per row, whatever these are."""
    return np.fromiter(values, object, count)


def kind_of(values: np.ndarray) -> str:
    """Return what an object array has: text, bytes, or else rows of different shapes or nulls."""
    kinds = set(map(type, values.flat))
    if all(issubclass(kind, str) for kind in kinds):
        return TEXT
    return BYTES if all(issubclass(kind, bytes) for kind in kinds) else RAGGED


def as_rows(values: Any) -> np.ndarray:
    """Return an object array with one value per row, of an array of any dtype and shape."""
    if values.dtype == object and values.ndim == 1:
        return np.asarray(values)
    return one_per_row(iter(values), len(values))


def alike(values: np.ndarray) -> np.ndarray:
    """Return rows as one array if all have the same shape and none is null; else as they are."""
    if values.dtype != object or values.ndim != 1 or not len(values):
        return values
    if isinstance(values[0], str | bytes) or any(value is None for value in values):
        return values
    if len({np.shape(value) for value in values}) > 1:
        return values
    if any(isinstance(value, str | bytes) for value in values):
        return values
    return np.stack(list(map(np.asarray, values)))


def with_nulls(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return rows with `None` where `valid` is false, and the values in order elsewhere."""
    found = np.full(len(valid), None, object)
    found[valid] = as_rows(values)
    return found


def split(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return one array per row, of the elements of all rows one after the other."""
    ends = np.cumsum(lengths)
    parts = (values[low:high] for low, high in zip(ends - lengths, ends, strict=True))
    return one_per_row(map(alike, parts), len(lengths))


def encoded(rows: np.ndarray) -> bytes:
    """Return rows as bytes, in Arrow's format.

    Raises:
        ValueError: If they have values of different kinds, such as numbers and text, or numbers
            that no type of Arrow holds.
    """
    if have_shapes(rows):
        values = pa.array([None if row is None else row.reshape(-1) for row in rows])
        shapes = pa.array([None if row is None else row.shape for row in rows])
        return batch_bytes(pa.record_batch([values, shapes], ["rows", SHAPES]))
    plain = [nested(row) for row in rows]
    try:
        try:
            column = pa.array(plain)
        except pa.ArrowInvalid:  # whole numbers and fractions, in different arrays
            column = pa.array([as_list(row) for row in rows])
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,  # a type of NumPy that Arrow lacks, such as `longdouble`
        OverflowError,
    ) as error:
        raise ValueError(
            "The rows of a column must be numbers that fit one type, all text or all bytes, or "
            f"lists of the same depth of these. Received: {error}"
        ) from error
    return batch_bytes(pa.record_batch([column], ["rows"]))


def have_shapes(rows: np.ndarray) -> bool:
    """Whether rows are arrays of numbers with several axes, such as images, or null.

    They are stored as flat values and shapes, because nested lists would be one per pixel.
    """
    kinds = {
        row.dtype if isinstance(row, np.ndarray) and row.ndim > 1 else object
        for row in rows
        if row is not None
    }
    return len(kinds) == 1 and np.dtype(next(iter(kinds))).kind in "biuf"


def batch_bytes(batch: pa.RecordBatch) -> bytes:
    """Return a record batch as bytes, with its type."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def nested(row: Any) -> Any:
    """Return a value of a row as Arrow takes it: arrays with several axes become lists."""
    if not isinstance(row, np.ndarray):
        return row
    if row.ndim == 1 and row.dtype != object:
        return row
    return list(map(nested, row))


def as_list(row: Any) -> Any:
    """Return a value of a row with lists of Python's own values in place of arrays."""
    return list(map(as_list, row.tolist())) if isinstance(row, np.ndarray) else row


def decoded(buffer: pa.Buffer) -> np.ndarray:
    """Return the rows of `encoded`."""
    with pa.ipc.open_stream(buffer) as reader:
        batch = reader.read_next_batch()
    rows = as_rows(rows_of(batch.column(0)))
    if SHAPES not in batch.schema.names:
        return rows
    pairs = zip(rows, batch.column(SHAPES).to_pylist(), strict=True)
    shaped = (row if row is None else row.reshape(shape) for row, shape in pairs)
    return one_per_row(shaped, len(rows))


def rows_of(column: pa.Array) -> np.ndarray:
    """Convert a column of numbers, text or bytes, or of lists of these, to one value per row."""
    if column.null_count:
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        return with_nulls(rows_of(column.drop_null()), valid)
    if pa.types.is_list(column.type):
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        return split(rows_of(column.flatten()), lengths)
    return np.array(column.to_numpy(zero_copy_only=False))  # Functions may change it in place.


def memory_of_values(values: Iterable[Any]) -> int:
    """Estimate the bytes of arrays among some values, in addition to the objects themselves."""
    found = 0
    for value in values:
        if isinstance(value, np.ndarray):
            found += value.nbytes + (OBJECT_BYTES * value.size if value.dtype == object else 0)
    return found


OBJECT_BYTES = 64
"""Memory of a short string, or of another small object, in bytes."""
