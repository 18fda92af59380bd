"""Read pieces of files as record batches, in bounded memory. Runs in tasks."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kspark.errors import ClusterError
from kspark.files.footers import opened
from kspark.files.listing import DataFile, version_of
from kspark.files.splits import Piece

BATCH_BYTES = 8 << 20
"""Approximate size of a record batch."""

BUFFER_BYTES = 32 << 20
"""Bytes of all columns together that are read from the file system at a time."""

LEAST_BUFFER = 64 << 10
SAMPLE_ROWS = 64
ROW = "kspark_row"
MOST_ROWS = 1 << 16


@dataclass(frozen=True)
class Column:
    """A column to read.

    Attributes:
        name: String, its name in the files, or that of a partition column.
        kind: `pa.DataType` to return it in.
        parts: Tuple of strings, the field of a struct to return. Defaults to `()`: the column.
    """

    name: str
    kind: pa.DataType
    parts: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The name of the column or field, as errors and pyarrow spell it."""
        return ".".join((self.name, *self.parts))


@dataclass(frozen=True)
class Selection:
    """The columns and rows to read.

    Attributes:
        columns: Tuple of `Column` to return, in this order.
        partitions: Mapping from the name of each partition column to its type.
        filter: `pc.Expression`, which rows to return; `None` for all.
        needed: Tuple of `Column` that the filter needs.
    """

    columns: tuple[Column, ...]
    partitions: Mapping[str, pa.DataType] = field(default_factory=dict)
    filter: pc.Expression | None = None
    needed: tuple[Column, ...] = ()

    def paths(self) -> list[str]:
        """Return the columns to read from a file, as pyarrow names them."""
        both = (*self.columns, *self.needed)
        return list(dict.fromkeys(c.path for c in both if c.name not in self.partitions))

    def batch(self, rows: pa.RecordBatch, file: DataFile) -> pa.RecordBatch:
        """Return the wanted columns of some rows of a file, without the rows that are not wanted.

        The columns of the result are named c0, c1 and so on.
        """
        wanted = [self._array(column, rows, file) for column in self.columns]
        batch = pa.RecordBatch.from_arrays(wanted, names=[f"c{i}" for i in range(len(wanted))])
        if self.filter is not None:
            names = [*(column.name for column in self.needed), ROW]
            arrays = [self._array(column, rows, file) for column in self.needed]
            table = pa.Table.from_arrays([*arrays, pa.array(np.arange(rows.num_rows))], names)
            places = table.filter(self.filter)[ROW].to_numpy()
            if len(places) < rows.num_rows:
                return batch.take(pa.array(np.sort(places)))  # A filter may change the order.
        return batch

    def _array(self, column: Column, rows: pa.RecordBatch, file: DataFile) -> pa.Array:
        if column.name in self.partitions:
            value = pa.scalar(file.values[column.name], column.kind)
            return pa.repeat(value, rows.num_rows)
        array = rows.column(rows.schema.get_field_index(column.name))
        if column.parts:
            array = pc.struct_field(array, list(column.parts))
        return array if array.type == column.kind else array.cast(column.kind)


def read_pieces(pieces: Iterable[Piece], selection: Selection) -> Iterator[pa.RecordBatch]:
    """Read the rows of pieces in their order.

    Args:
        pieces: Iterable of `Piece`.
        selection: `Selection`.

    Yields:
        Record batches of about `BATCH_BYTES`, not empty.

    Raises:
        ClusterError: If this host does not read a file as the driver read it. Another host may.
    """
    for piece in pieces:
        try:
            for rows in read_piece(piece, selection.paths()):
                batch = selection.batch(rows, piece.file)
                if batch.num_rows:
                    yield batch
        except OSError as error:
            raise ClusterError(
                f"Host {platform.node()} cannot read {piece.file.place.shown!r}, which the driver "
                f"found: {error}. Each worker must reach the path, with the credentials that its "
                "process has: use a file system that all hosts share"
            ) from error
    pa.default_memory_pool().release_unused()  # A model may train in this process next.


def read_piece(piece: Piece, paths: list[str]) -> Iterator[pa.RecordBatch]:
    """Read the rows of one piece."""
    with opened(piece.file, max(LEAST_BUFFER, BUFFER_BYTES // max(1, len(paths)))) as file:
        check_unchanged(file, piece.file)
        groups = list(piece.groups)
        paths = paths or file.schema_arrow.names[:1]  # Some column, to count the rows.
        size = batch_rows(file, groups, paths)
        skip, left = piece.skip, piece.rows
        for batch in file.iter_batches(size, groups, paths, use_threads=False):
            rows = batch.slice(min(skip, batch.num_rows), left)
            skip, left = max(0, skip - batch.num_rows), left - rows.num_rows
            if rows.num_rows:
                yield from small(rows)
            if not left:
                return


def check_unchanged(file: pq.ParquetFile, known: DataFile) -> None:
    """Check that a file is the one that the driver found.

    Raises:
        ClusterError: If it is not.
    """
    if file.metadata.num_rows != known.rows:
        raise ClusterError(
            f"{known.place.shown!r} has {file.metadata.num_rows} rows on host {platform.node()}, "
            f"but had {known.rows} when the driver read its footer. Do not write to the files "
            "while they are read"
        )
    if known.version is None:
        return
    size, changed = version_of(known.place, known.place.system.get_file_info(known.place.path))
    times = {changed, known.version[1]} - {None}
    if size != known.version[0] or len(times) > 1:
        raise ClusterError(
            f"{known.place.shown!r} has another size or time of change on host {platform.node()} "
            "than when the driver found it. Do not write to the files while they are read, and "
            "keep their times if you copy them to each host"
        )


def batch_rows(file: pq.ParquetFile, groups: list[int], paths: list[str]) -> int:
    """Return how many rows take about `BATCH_BYTES`.

    Columns may be stored in far fewer bytes than they take as arrays, so a few rows are read. These
    may be smaller than the others, so the bytes in the file count, too.
    """
    sample = next(iter(file.iter_batches(SAMPLE_ROWS, groups[:1], paths, use_threads=False)))
    per_row = max(sample.nbytes / sample.num_rows, stored_bytes(file, groups, paths), 1)
    return max(1, min(MOST_ROWS, int(BATCH_BYTES / per_row)))


def stored_bytes(file: pq.ParquetFile, groups: list[int], paths: list[str]) -> float:
    """Return the bytes per row that columns have before compression, the most of row groups."""
    names = (file.schema.column(i).path for i in range(len(file.schema)))
    wanted = set(paths)
    chosen = [i for i, name in enumerate(names) if not wanted.isdisjoint(heads_of(name))]
    found = (file.metadata.row_group(number) for number in groups)
    return max(
        sum(group.column(i).total_uncompressed_size for i in chosen) / max(1, group.num_rows)
        for group in found
    )


def heads_of(name: str) -> Iterator[str]:
    """Yield the paths that contain a column of Parquet: "a", "a.list" and "a.list.element"."""
    return accumulate(name.split("."), "{}.{}".format)


def small(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch in parts, if it is much larger than `BATCH_BYTES`."""
    parts = min(rows.num_rows, rows.nbytes // BATCH_BYTES)
    step = -(-rows.num_rows // max(1, parts))
    for start in range(0, rows.num_rows, step):
        yield rows.slice(start, step)
