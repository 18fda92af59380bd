"""Rows of numbers of which most are zero, in compressed form: `SparseRows`.

The form is that of compressed sparse rows (CSR): the entries of all rows, one row after the other,
with their positions, and where each row begins. Zeros take no memory. A model takes dense arrays,
so `toarray` makes one of the rows of a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from kspark.shards.ragged import memory_of_values

NARROW = 256
"""Rows of fewer elements are kept dense: that costs little, and a batch of them is made quicker."""

LEAST_SAVING = 3
"""How many times less memory than dense rows sparse ones must take to be kept sparse."""

SAMPLE = 100
"""Texts, or bytes, of an array that are looked at to estimate the memory of all."""

POSITION = np.dtype(np.int32)
START = np.dtype(np.int64)


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Rows of numbers in compressed form. Several may share the memory of their entries.

    Attributes:
        data: Vector of the entries, row after row. An entry may be zero.
        indices: Vector of int32, the position of each entry among the elements of its row, which
            are in row-major order. A row has no position twice.
        indptr: Vector of int64, one longer than there are rows. The entries of row `i` are those
            from `indptr[i]` to `indptr[i + 1]`; the first is 0.
        row_shape: Tuple of integers, the shape of one row.
    """

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    row_shape: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray | SparseRows) -> SparseRows:
        """Compress an array of numbers whose first axis is the row. All its bits are kept."""
        if isinstance(values, SparseRows):
            return values
        matrix = np.ascontiguousarray(values).reshape(len(values), prod(values.shape[1:]))
        # Not `matrix != 0`, because a row may contain -0.0.
        rows, places = np.nonzero(matrix.view(f"u{matrix.itemsize}"))
        return cls(
            matrix[rows, places],
            places.astype(POSITION),
            starts_of(np.bincount(rows, minlength=len(matrix))),
            values.shape[1:],
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense array."""
        return (len(self), *self.row_shape)

    @property
    def ndim(self) -> int:
        """Number of axes of the dense array."""
        return 1 + len(self.row_shape)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the entries."""
        return self.data.dtype

    @property
    def itemsize(self) -> int:
        """Bytes of one entry, without its position."""
        return self.data.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes in compressed form."""
        return self.data.nbytes + self.indices.nbytes + self.indptr.nbytes

    @property
    def dense_nbytes(self) -> int:
        """Bytes of the dense array."""
        return len(self) * prod(self.row_shape) * self.itemsize

    @property
    def saves_memory(self) -> bool:
        """Whether the rows take much less memory than if they were dense."""
        return saves_memory(len(self), prod(self.row_shape), len(self.data), self.itemsize)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, rows: slice | np.ndarray) -> SparseRows:
        """Return the rows of a slice, which share the memory of these, or of some row numbers."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._run(start, max(start, stop))
            rows = np.arange(len(self))[rows]
        first = self.indptr[rows]
        counts = self.indptr[rows + 1] - first
        indptr = starts_of(counts)
        entries = np.repeat(first - indptr[:-1], counts) + np.arange(indptr[-1])
        return SparseRows(self.data[entries], self.indices[entries], indptr, self.row_shape)

    def _run(self, start: int, stop: int) -> SparseRows:
        indptr = self.indptr[start : stop + 1]
        entries = slice(indptr[0], indptr[-1])
        return SparseRows(
            self.data[entries], self.indices[entries], indptr - indptr[0], self.row_shape
        )

    def astype(self, dtype: Any, copy: bool = True) -> SparseRows:
        """Return the rows with entries of another dtype; without `copy`, these if they have it."""
        return self.with_data(self.data.astype(dtype, copy=copy))

    def with_data(self, data: np.ndarray) -> SparseRows:
        """Return rows with other entries at the same positions."""
        return SparseRows(data, self.indices, self.indptr, self.row_shape)

    def reshape(self, count: int, *row_shape: int) -> SparseRows:
        """Return the same rows in another shape per row, with as many elements.

        Raises:
            ValueError: If the number of rows or of elements differs.
        """
        if count != len(self) or prod(row_shape) != prod(self.row_shape):
            raise ValueError(f"Rows of shape {self.shape} cannot become {(count, *row_shape)}")
        return SparseRows(self.data, self.indices, self.indptr, row_shape)

    def toarray(self) -> np.ndarray:
        """Return the rows as a dense array."""
        out = np.zeros((len(self), prod(self.row_shape)), self.dtype)
        out[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.data
        return out.reshape(self.shape)

    def row_of(self, entry: int) -> int:
        """Return the number of the row of an entry."""
        return int(np.searchsorted(self.indptr, entry, "right")) - 1

    @property
    def parts(self) -> tuple[Any, ...]:
        """The attributes as a plain tuple, of which the class makes the rows again."""
        return self.data, self.indices, self.indptr, self.row_shape


Features = np.ndarray | SparseRows
"""The rows of one input: an array, or `SparseRows`."""


def saves_memory(rows: int, width: int, entries: int, itemsize: int) -> bool:
    """Whether rows are wide, and take much less memory if they are sparse.

    Args:
        rows: Integer, number of rows.
        width: Integer, elements per row.
        entries: Integer, number of the entries of all rows.
        itemsize: Integer, bytes of an element.
    """
    if width < NARROW:
        return False
    return LEAST_SAVING * sparse_nbytes(rows, entries, itemsize) < rows * width * itemsize


def sparse_nbytes(rows: int, entries: int, itemsize: int) -> int:
    """Return the bytes of rows in compressed form."""
    return entries * (itemsize + POSITION.itemsize) + rows * START.itemsize


def starts_of(counts: np.ndarray) -> np.ndarray:
    """Return where each row begins, and where the last one ends, from the entries of each row."""
    starts = np.zeros(len(counts) + 1, START)
    np.cumsum(counts, out=starts[1:])
    return starts


def dense(values: Features) -> np.ndarray:
    """Return rows as an array."""
    return values.toarray() if isinstance(values, SparseRows) else values


def dense_nbytes(values: Features) -> int:
    """Return the bytes of rows as an array."""
    return values.dense_nbytes if isinstance(values, SparseRows) else memory_of(values)


def memory_of(values: Features) -> int:
    """Return the bytes of rows in memory; for text and bytes, an estimate from some of them."""
    if isinstance(values, SparseRows) or values.dtype != object:
        return int(values.nbytes)
    some = values.reshape(-1)[:: max(1, values.size // SAMPLE)]
    contents = sum(map(sys.getsizeof, some)) + memory_of_values(some)
    return int(values.nbytes) + contents * values.size // max(1, len(some))


def stacked(parts: Sequence[Features], dtype: np.dtype) -> SparseRows:
    """Return the rows of parts with the same shape per row one after the other."""
    found = [SparseRows.of(part) for part in parts]
    return SparseRows(
        np.concatenate([part.data.astype(dtype, copy=False) for part in found]),
        np.concatenate([part.indices for part in found]),
        starts_of(np.concatenate([np.diff(part.indptr) for part in found])),
        found[0].row_shape,
    )


def side_by_side(parts: Sequence[Features]) -> SparseRows:
    """Return rows that have the elements of the same rows of all parts, one part after the other.

    The dtype follows from NumPy's rules of promotion.
    """
    found = [SparseRows.of(part) for part in parts]
    counts = [np.diff(part.indptr) for part in found]
    indptr = starts_of(reduce(np.add, counts))
    data = np.empty(indptr[-1], np.result_type(*(part.dtype for part in found)))
    indices = np.empty(indptr[-1], POSITION)
    first, offset = indptr[:-1].copy(), 0
    for part, own in zip(found, counts, strict=True):
        places = np.repeat(first - part.indptr[:-1], own) + np.arange(len(part.data))
        data[places], indices[places] = part.data, part.indices + offset
        first, offset = first + own, offset + prod(part.row_shape)
    return SparseRows(data, indices, indptr, (offset,))
