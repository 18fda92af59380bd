"""Read the footers of files: their schemas and row groups, not their rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from kspark.files.listing import DataFile
from kspark.files.other_formats import way_to_read
from kspark.files.types import schema_of

READERS = 16
"""Threads that read footers. They wait for the file system most of the time."""


@dataclass(frozen=True)
class RowGroup:
    """Rows that lie together in a file.

    Attributes:
        file: Integer, position of the file among all files.
        number: Integer, position in the file.
        rows: Integer, number of rows.
        nbytes: Integer, bytes of these rows before compression.
    """

    file: int
    number: int
    rows: int
    nbytes: int


@dataclass(frozen=True)
class Footer:
    """What the driver needs of a file's footer.

    Attributes:
        schema: `pa.Schema`, see `kspark.files.types.schema_of`.
        groups: Tuple of `RowGroup`.
    """

    schema: pa.Schema
    groups: tuple[RowGroup, ...]

    @property
    def rows(self) -> int:
        """Number of rows in the file."""
        return sum(group.rows for group in self.groups)


def opened(file: DataFile, buffer_size: int = 0) -> pq.ParquetFile:
    """Open a file.

    Args:
        file: `DataFile`.
        buffer_size: Integer, bytes of a column to read at a time. Defaults to `0`, all that a row
            group has.

    Raises:
        ValueError: If it is not a Parquet file.
        OSError: If it cannot be read.
    """
    try:
        return pq.ParquetFile(
            file.place.path,
            filesystem=file.place.system,
            buffer_size=buffer_size,
            pre_buffer=False,  # It would keep the bytes of all row groups until the end.
            coerce_int96_timestamp_unit="us",
        )
    except pa.ArrowInvalid as error:
        advice, reason = way_to_read(file.place.path), str(error).rstrip(".")
        raise ValueError(
            f"{file.place.shown!r} must be a Parquet file. {reason}{advice}"
        ) from error


def read_footer(number: int, file: DataFile) -> Footer:
    """Read the footer of a file, the position of which among all files is `number`."""
    with opened(file) as parquet:
        metadata = parquet.metadata
        found = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        groups = (
            RowGroup(number, i, group.num_rows, group.total_byte_size)
            for i, group in enumerate(found)
        )
        return Footer(schema_of(parquet), tuple(group for group in groups if group.rows))


def read_footers(files: Sequence[DataFile]) -> list[Footer]:
    """Read the footers of all files.

    Raises:
        ValueError: If a file is not a Parquet file.
        OSError: If a file cannot be read.
    """
    with ThreadPoolExecutor(min(READERS, len(files))) as pool:
        return list(pool.map(read_footer, range(len(files)), files))
