"""Read a shard in windows of rows, in order or shuffled, each row once per pass."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import numpy as np

from kspark.errors import invalid
from kspark.shards.files import Range, TruncatedFileError, read_ranges
from kspark.shards.handle import ShardHandle
from kspark.shards.rows import Chunk, Window, num_batches
from kspark.shards.spec import RAGGED
from kspark.shards.writing import SpoolMissingError

WINDOW_BYTES = 128 << 20
BLOCKS_PER_WINDOW = 32
"""Number of runs of consecutive rows, from random places of a large shard, per shuffled window."""

BYTES_PER_STRING = 64
"""Memory in bytes of a Python string and the reference to it, without its characters."""

RAGGED_FACTOR = 4
"""Memory of rows of different shapes, for each byte on disk, if they are lists of short texts."""


class Shard:
    """One partition's examples on this host's disk.

    The constructor does not access the files; `open` checks that they are complete.

    Args:
        handle: `ShardHandle`.
    """

    def __init__(self, handle: ShardHandle) -> None:
        self.handle = handle

    @classmethod
    def open(cls, handle: ShardHandle) -> Shard:
        """Check that a shard's files are complete on this host, and return the shard.

        A shard whose rows are not on disk has a folder, beside which its state is kept.

        Raises:
            SpoolMissingError: If a file is missing or has another size.
        """
        if handle.is_streamed:
            if not os.path.isdir(handle.path):
                raise SpoolMissingError(
                    f"Shard {handle.index} began on host {handle.host}, but on this host its "
                    f"folder {handle.path} is missing."
                )
            return cls(handle)
        for file, nbytes in (pair for stored in handle.arrays for pair in stored.files.items()):
            path = os.path.join(handle.path, file)
            if not os.path.isfile(path) or os.path.getsize(path) != nbytes:
                raise SpoolMissingError(
                    f"Shard {handle.index} was written to {handle.path} on host {handle.host}, "
                    f"but on this host its file {file} is missing or incomplete."
                )
        return cls(handle)

    @property
    def index(self) -> int:
        """Number of the partition."""
        return self.handle.index

    @property
    def num_examples(self) -> int:
        """Number of rows."""
        return self.handle.num_examples

    @property
    def row_bytes(self) -> float:
        """Memory of one row in bytes, over all arrays; sparse rows stay sparse."""
        count = max(1, self.num_examples)
        return sum(
            s.nbytes / count * (RAGGED_FACTOR if s.dtype == RAGGED else 1)
            + (BYTES_PER_STRING * s.items if s.is_text else 0)
            for s in self.handle.arrays
        )

    def read(self, start: int = 0, stop: int | None = None) -> Chunk:
        """Read rows `[start, stop)` in stored order into new arrays.

        Raises:
            SpoolMissingError: If a file was removed or truncated since `open`.
            ValueError: If the range is not within the shard.
        """
        return self._read([self._range(start, stop)])

    def windows(
        self,
        batch_size: int,
        *,
        start: int = 0,
        stop: int | None = None,
        rng: np.random.Generator | None = None,
        window_bytes: int | None = None,
        batches: Range | None = None,
    ) -> Iterator[Window]:
        """Read rows `[start, stop)` once, in windows.

        Without `rng`, rows come in stored order. With `rng`, they are shuffled:
        globally if they fit into one window. Else each window consists of runs of
        consecutive rows from random places, shuffled within the window.

        Args:
            batch_size: Integer. The length of every window but the last is a multiple of it.
            start: Integer, first row.
            stop: Integer, row after the last one. Defaults to the number of rows.
            rng: `np.random.Generator`; the same state gives the same order.
            window_bytes: Integer, memory limit of a window in bytes. Defaults to 128 MiB if
                one window holds all rows. Else to half of that, because two windows are in
                memory while the next one is read. A window has at least one batch, even if
                that exceeds the limit.
            batches: Tuple of integers, the first batch of this pass to read and the one after the
                last. Defaults to all. The order of the rows does not depend on it.

        Returns:
            Iterator of `Window`, empty if there are no rows.

        Raises:
            SpoolMissingError: If a file was removed or truncated since `open`.
            ValueError: If the range is not within the shard, or `batch_size` is not positive.
        """
        if batch_size < 1:
            raise invalid("batch_size", "an integer >= 1", batch_size)
        start, stop = self._range(start, stop)
        whole, part = (
            int((window_bytes or default) // max(self.row_bytes, 1e-9))
            for default in (WINDOW_BYTES, WINDOW_BYTES // 2)
        )
        if start == stop:
            return iter(())
        rows = max(part // batch_size, 1) * batch_size
        if stop - start <= max(whole, rows):
            window = self._whole(start, stop, rng)
            return iter((window if batches is None else window.part(batch_size, *batches),))
        return self._parts(start, stop, rows, batch_size, rng, batches)

    def _whole(self, start: int, stop: int, rng: np.random.Generator | None) -> Window:
        window = self._read([(start, stop)], mapped=True).window()
        window.key = (self.handle.path, start, stop)
        if rng is not None:
            window.order = permutation(stop - start, rng)
        return window

    def _parts(
        self,
        start: int,
        stop: int,
        rows: int,
        batch_size: int,
        rng: np.random.Generator | None,
        batches: Range | None,
    ) -> Iterator[Window]:
        if rng is None:
            runs = [(start, stop)]
        else:
            length = max(rows // BLOCKS_PER_WINDOW, 1)
            runs = [(low, min(low + length, stop)) for low in range(start, stop, length)]
            runs = [runs[i] for i in rng.permutation(len(runs))]
        for number, ranges in enumerate(cut(runs, rows)):
            count = sum(high - low for low, high in ranges)
            order = None if rng is None else permutation(count, rng)
            first = number * rows // batch_size
            low, high = first, first + num_batches(count, batch_size)
            if batches is not None:
                low, high = max(low, batches[0]), min(high, batches[1])
            if low >= high:
                continue
            window = self._read(ranges).window()
            window.order, window.first_batch = order, first
            yield window if batches is None else window.part(batch_size, low, high)

    def _range(self, start: int, stop: int | None) -> Range:
        stop = self.num_examples if stop is None else stop
        if not 0 <= start <= stop <= self.num_examples:
            rule = f"a range within the shard's {self.num_examples} rows"
            raise invalid("start, stop", rule, (start, stop))
        return start, stop

    def _read(self, ranges: list[Range], mapped: bool = False) -> Chunk:
        handle = self.handle
        try:
            x, y, weights = (
                [read_ranges(handle.path, stored, ranges, mapped) for stored in group]
                for group in (handle.x, handle.y, handle.sample_weight)
            )
        except (FileNotFoundError, TruncatedFileError) as error:
            raise SpoolMissingError(
                f"Shard {handle.index} is no longer complete in {handle.path}: {error}"
            ) from error
        return Chunk(x, y, weights)

    def state_path(self, name: str) -> str:
        """Return the path of an additional file or directory for this shard.

        It is kept when the shard is written again on this host, and removed together
        with everything spooled under the same run id.

        Args:
            name: String, a file name.

        Raises:
            ValueError: If `name` is not a plain file name.
        """
        if not name or os.path.basename(name) != name or name in (".", ".."):
            raise invalid("name", "a file name", name)
        folder = os.path.dirname(self.handle.path)
        return os.path.join(folder, f"{name}-{self.handle.index:05d}")

    def delete(self) -> None:
        """Remove the shard's files from this host. Missing files are no error."""
        shutil.rmtree(self.handle.path, ignore_errors=True)

    @classmethod
    def remove(cls, handle: ShardHandle) -> None:
        """Remove a shard's files from this host without opening it."""
        cls(handle).delete()


def permutation(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the numbers from 0 to `count - 1` in random order, as int32 if they fit."""
    dtype = np.int32 if count <= np.iinfo(np.int32).max else np.int64
    return rng.permutation(np.arange(count, dtype=dtype))


def cut(runs: list[Range], rows: int) -> Iterator[list[Range]]:
    """Cut runs of rows into groups of exactly `rows` rows; the last group may have fewer."""
    group: list[Range] = []
    room = rows
    for start, stop in runs:
        while stop - start >= room:
            yield [*group, (start, start + room)]
            start, group, room = start + room, [], rows
        if start < stop:
            group.append((start, stop))
            room -= stop - start
    if group:
        yield group
