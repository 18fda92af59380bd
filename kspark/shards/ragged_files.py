"""Write rows of different shapes to a file by appending them, and read them back by position.

The rows are stored as an Arrow file of blocks: each record batch holds the bytes of some rows, so
that each block has a type of its own. All blocks but the last have the same number of rows, which
stands in the file, so that the block of a row can be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from kspark.shards.ragged import as_rows, decoded, encoded, memory_of_values
from kspark.shards.sparse import Features, dense
from kspark.shards.spec import RAGGED

MAX_BLOCK = 256
"""The most rows in a block."""

BLOCK_BYTES = 1 << 20
"""About the most bytes in a block of several rows: a reader of one row decodes its whole block."""

ROWS = b"rows of a block"

Range = tuple[int, int]


class RaggedWriter:
    """Appends rows of different shapes, or nulls, to an Arrow file.

    Args:
        path: String, the file to create.

    Attributes:
        paths: Tuple of strings, the file.
        entries: `None`, because the rows are not sparse.
    """

    dtype = RAGGED
    entries = None

    def __init__(self, path: str) -> None:
        self.paths = (path,)
        self._waiting = np.empty(0, object)
        self._block = 0
        self._file: Any = None

    def write(self, values: Features) -> None:
        """Append rows.

        Raises:
            ValueError: If they have values of different kinds, such as numbers and text.
        """
        rows = np.concatenate([self._waiting, as_rows(dense(values))])
        if self._file is None and len(rows):
            self._begin(memory_of_values(rows) // len(rows))
        while len(rows) >= self._block > 0:
            self._write_block(rows[: self._block])
            rows = rows[self._block :]
        self._waiting = rows

    def _begin(self, row_bytes: int) -> None:
        """Create the file, with blocks for rows of this size."""
        self._block = max(1, min(MAX_BLOCK, BLOCK_BYTES // max(1, row_bytes)))
        kind = pa.field("rows", pa.large_binary())
        self._schema = pa.schema([kind], {ROWS: str(self._block).encode()})
        self._file = pa.ipc.new_file(self.paths[0], self._schema)

    def _write_block(self, rows: np.ndarray) -> None:
        column = pa.array([encoded(rows)], pa.large_binary())
        self._file.write_batch(pa.record_batch([column], schema=self._schema))

    def close(self) -> None:
        """Write the buffered rows and close the file."""
        if self._file is None:
            self._begin(0)
        if len(self._waiting):
            self._write_block(self._waiting)
            self._waiting = self._waiting[:0]
        self._file.close()


def read_ragged(path: str, ranges: Sequence[Range]) -> np.ndarray:
    """Return the rows in some ranges of a file of `RaggedWriter`, which may be changed in place."""
    found = [np.empty(0, object)]
    with pa.OSFile(path) as source:
        file = pa.ipc.open_file(source)
        size = int(file.schema.metadata[ROWS])
        for start, stop in ranges:
            for block, low, high in blocks_of(start, stop, size):
                rows = decoded(file.get_batch(block).column(0)[0].as_buffer())
                found.append(rows[low:high])
    return np.concatenate(found)


def blocks_of(start: int, stop: int, size: int) -> list[tuple[int, int, int]]:
    """Return the blocks of rows `[start, stop)` as (block, start in it, stop in it)."""
    blocks = []
    while start < stop:
        block, low = divmod(start, size)
        high = min(size, low + stop - start)
        blocks.append((block, low, high))
        start += high - low
    return blocks
