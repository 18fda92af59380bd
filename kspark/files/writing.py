"""Write record batches to one Parquet file, in bounded memory. Runs in tasks."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from kspark.errors import ClusterError
from kspark.files.paths import Resolved

GROUP_BYTES = 32 << 20
"""Approximate size in memory of the rows that are written as one row group."""


class PartWriter:
    """Writes a file of record batches.

    The file is created with the first rows, so that a task without rows leaves none.

    Args:
        place: `Resolved`, path of the file.
        schema: `pa.Schema` of the batches.
    """

    def __init__(self, place: Resolved, schema: pa.Schema) -> None:
        self._place = place
        self._schema = schema
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows.

        Raises:
            ClusterError: If this host cannot write the file. Another host may.
        """
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting, self._schema)
        with named_host(self._place):
            if self._writer is None:
                self._writer = pq.ParquetWriter(
                    self._place.path,
                    self._schema,
                    filesystem=self._place.system,
                    use_dictionary=repeating(self._schema),
                )
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._waiting, self._bytes = [], 0

    def close(self) -> None:
        """Write the buffered rows, and complete the file."""
        if self._waiting:
            self._flush()
        if self._writer is not None:
            with named_host(self._place):
                self._writer.close()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()


@contextmanager
def named_host(place: Resolved) -> Iterator[None]:
    """Turn errors of a file system into one that names the host and the path.

    Raises:
        ClusterError: If the block raises an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise ClusterError(
            f"Host {platform.node()} cannot write {place.shown!r}: {error}. Each worker must reach "
            "the `output`: use a file system that all hosts share"
        ) from error


def repeating(schema: pa.Schema) -> list[str]:
    """Return the columns whose values may repeat: all but those with floating point numbers.

    A dictionary of such numbers takes time, and is given up after the first rows.
    """
    return [field.name for field in schema if not has_floats(field.type)]


def has_floats(kind: pa.DataType) -> bool:
    """Whether a type has floating point numbers in it."""
    if isinstance(kind, pa.BaseExtensionType):
        return has_floats(kind.storage_type)
    if pa.types.is_nested(kind):
        return any(has_floats(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_floating(kind))
