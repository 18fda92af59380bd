"""Write one array by appending rows, and read rows back by position.

Numbers are stored as raw bytes in row-major order. Sparse rows are stored as three such files: the
entries, their positions, and where each row begins. Text is stored as an Arrow file whose record
batches have `TEXT_BLOCK` rows each (the last may have fewer), so that the batch of a row can be
computed. Rows of different shapes are stored as `kspark.shards.ragged_files` says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from kspark.shards.handle import INDICES, STARTS, StoredArray
from kspark.shards.ragged_files import blocks_of, read_ragged
from kspark.shards.sparse import POSITION, START, Features, SparseRows, starts_of
from kspark.shards.spec import BYTES, RAGGED, TEXT

TEXT_BLOCK = 4096
COPY_BYTES = 16 << 20

Range = tuple[int, int]


class TruncatedFileError(OSError):
    """A file ends before the rows that it should contain."""


class NumberWriter:
    """Appends rows of numbers to a raw file.

    Args:
        path: String, the file to create.
        dtype: `np.dtype` of the first rows. Later rows may widen it.

    Attributes:
        paths: Tuple of strings, the files.
        entries: `None`, because the rows are dense.
    """

    entries = None

    def __init__(self, path: str, dtype: np.dtype) -> None:
        self.paths = (path,)
        self._path = path
        self._dtype = dtype
        self._file = open(path, "wb")  # noqa: SIM115 (closed by `close`)

    @property
    def dtype(self) -> str:
        """Name of the dtype on disk."""
        return self._dtype.name

    def write(self, values: Features) -> None:
        """Append rows. Sparse ones become dense a few at a time."""
        if isinstance(values, SparseRows):
            step = max(1, COPY_BYTES * len(values) // max(1, values.dense_nbytes))
            for start in range(0, len(values), step):
                self._write(values[start : start + step].toarray())
        else:
            self._write(values)

    def _write(self, values: np.ndarray) -> None:
        wide = common_dtype(self._dtype, values.dtype)
        if wide != self._dtype:
            self._widen(wide)
        if values.size:
            rows = np.ascontiguousarray(values, dtype=self._dtype)
            self._file.write(as_bytes(rows))

    def _widen(self, dtype: np.dtype) -> None:
        """Rewrite the file with a dtype that can hold the rows to come."""
        self._file.close()
        narrow = self._path + ".narrow"
        os.replace(self._path, narrow)
        count = COPY_BYTES // self._dtype.itemsize
        with open(narrow, "rb") as old:
            self._file = open(self._path, "wb")  # noqa: SIM115 (closed by `close`)
            while (block := np.fromfile(old, self._dtype, count)).size:
                self._file.write(as_bytes(block.astype(dtype)))
        os.unlink(narrow)
        self._dtype = dtype

    def close(self) -> None:
        """Write the buffered rows and close the file."""
        self._file.close()


class SparseWriter:
    """Appends sparse rows to three raw files, see `StoredArray.files`.

    Args:
        path: String, the file of the entries, to create.
        dtype: `np.dtype` of the first rows. Later rows may widen it.

    Attributes:
        paths: Tuple of strings, the files.
        entries: Integer, number of entries that were written.
    """

    def __init__(self, path: str, dtype: np.dtype) -> None:
        self.paths = (path, path + INDICES, path + STARTS)
        self.entries = 0
        self._data = NumberWriter(self.paths[0], dtype)
        self._indices = NumberWriter(self.paths[1], POSITION)
        self._starts = NumberWriter(self.paths[2], START)
        self._starts.write(np.zeros(1, START))

    @property
    def dtype(self) -> str:
        """Name of the dtype of the entries on disk."""
        return self._data.dtype

    def write(self, values: Features) -> None:
        """Append rows. Dense ones become sparse."""
        rows = SparseRows.of(values)
        self._data.write(rows.data)
        self._indices.write(rows.indices)
        self._starts.write(rows.indptr[1:] + self.entries)
        self.entries += len(rows.data)

    def close(self) -> None:
        """Write the buffered rows and close the files."""
        for file in (self._data, self._indices, self._starts):
            file.close()


class TextWriter:
    """Appends rows of text, or of bytes, to an Arrow file.

    Args:
        path: String, the file to create.
        items: Integer, strings per row.
        dtype: String, `"string"` or `"bytes"`. Defaults to `"string"`.

    Attributes:
        paths: Tuple of strings, the file.
        entries: `None`, because the rows are dense.
    """

    entries = None

    def __init__(self, path: str, items: int, dtype: str = TEXT) -> None:
        self.dtype = dtype
        self.paths = (path,)
        self._block = TEXT_BLOCK * items
        self._waiting: list[str | bytes] = []
        self._kind = pa.large_binary() if dtype == BYTES else pa.large_string()
        self._schema = pa.schema([("text", self._kind)])
        self._file = pa.ipc.new_file(path, self._schema)

    def write(self, values: np.ndarray) -> None:
        """Append rows."""
        self._waiting.extend(values.reshape(-1).tolist())
        while len(self._waiting) >= self._block > 0:
            self._write_block()

    def _write_block(self) -> None:
        column = pa.array(self._waiting[: self._block], self._kind)
        del self._waiting[: self._block]
        self._file.write_batch(pa.record_batch([column], schema=self._schema))

    def close(self) -> None:
        """Write the buffered rows and close the file."""
        if self._waiting:
            self._write_block()
        self._file.close()


def common_dtype(left: np.dtype, right: np.dtype) -> np.dtype:
    """Return the dtype to store rows of both.

    If one is floating point and the other is not, the floating point dtype wins, whatever its
    width. Else NumPy's promotion rules apply.
    """
    if left.kind == "f" and right.kind != "f":
        return left
    if right.kind == "f" and left.kind != "f":
        return right
    return np.result_type(left, right)


def as_bytes(values: np.ndarray) -> memoryview:
    """View the memory of a contiguous array as bytes."""
    return values.reshape(-1).view(np.uint8).data


def read_ranges(
    folder: str, stored: StoredArray, ranges: Sequence[Range], mapped: bool = False
) -> Any:
    """Read rows of a stored array.

    Args:
        folder: String, the shard's directory.
        stored: `StoredArray`.
        ranges: Sequence of (start, stop) pairs of row numbers.
        mapped: Boolean, whether numbers of a single range are mapped from the file instead of
            copied. Training uses the pages that the system has cached, so an epoch reads no row
            again. What is written to the array does not reach the file. Defaults to `False`.

    Returns:
        Array, or `SparseRows`, of the rows of all ranges, concatenated.

    Raises:
        FileNotFoundError: If a file does not exist.
        TruncatedFileError: If a file is too short.
    """
    path = os.path.join(folder, stored.file)
    if stored.entries is not None:
        return _read_sparse(path, stored, ranges)
    if stored.dtype == RAGGED:
        return read_ragged(path, ranges)
    rows = sum(stop - start for start, stop in ranges)
    if mapped and not stored.is_text and len(ranges) == 1 and rows * stored.items:
        return _map_numbers(path, stored, *ranges[0])
    if stored.is_text:
        flat = _read_text(path, stored, ranges, rows)
    else:
        flat = _read_numbers(path, np.dtype(stored.dtype), ranges, stored.items)
    return flat.reshape(rows, *stored.shape)


def _map_numbers(path: str, stored: StoredArray, start: int, stop: int) -> np.ndarray:
    dtype = np.dtype(stored.dtype)
    offset = start * stored.items * dtype.itemsize
    try:
        array = np.memmap(path, dtype, "c", offset, (stop - start, *stored.shape))
    except ValueError as error:
        raise TruncatedFileError(f"{path} ends before row {stop}.") from error
    return array.view(np.ndarray)


def _read_sparse(path: str, stored: StoredArray, ranges: Sequence[Range]) -> SparseRows:
    found = [_read_numbers(path + STARTS, START, [(low, high + 1)]) for low, high in ranges]
    entries = [(int(starts[0]), int(starts[-1])) for starts in found]
    counts = [np.diff(starts) for starts in found]
    return SparseRows(
        _read_numbers(path, np.dtype(stored.dtype), entries),
        _read_numbers(path + INDICES, POSITION, entries),
        starts_of(np.concatenate([np.empty(0, START), *counts])),
        stored.shape,
    )


def _read_numbers(
    path: str, dtype: np.dtype, ranges: Sequence[Range], items: int = 1
) -> np.ndarray:
    """Read the numbers of rows of so many items each."""
    out = np.empty(sum(stop - start for start, stop in ranges) * items, dtype)
    view = as_bytes(out)
    row_bytes = out.itemsize * items
    at = 0
    with open(path, "rb") as file:
        for start, stop in ranges:
            size = (stop - start) * row_bytes
            file.seek(start * row_bytes)
            if size and file.readinto(view[at : at + size]) != size:
                raise TruncatedFileError(f"{path} ends before row {stop}.")
            at += size
    return out


def _read_text(path: str, stored: StoredArray, ranges: Sequence[Range], rows: int) -> np.ndarray:
    out = np.empty(rows * stored.items, object)
    if not out.size:
        return out
    at = 0
    with pa.OSFile(path) as source:
        file = pa.ipc.open_file(source)
        for start, stop in ranges:
            for block, low, high in blocks_of(start, stop, TEXT_BLOCK):
                items = slice(low * stored.items, high * stored.items)
                texts = file.get_batch(block).column(0).to_pylist()[items]
                out[at : at + len(texts)] = texts
                at += len(texts)
    return out
