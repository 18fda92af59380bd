"""Reading a shard: windows of rows, in order or shuffled, each row once per pass."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import numpy as np

from kspark.errors import invalid
from kspark.shards.files import Range, TruncatedFileError, read_ranges
from kspark.shards.handle import ShardHandle, StoredArray
from kspark.shards.rows import Chunk, Window
from kspark.shards.writing import SpoolMissingError

WINDOW_BYTES = 128 << 20
BLOCKS_PER_WINDOW = 32
"""A shuffled window of a large shard is made of this many runs of rows from all over it."""

BYTES_PER_STRING = 64
"""What a Python string and the reference to it take in memory beyond its characters."""


class Shard:
    """One partition's examples on this host's disk.

    The constructor looks at nothing; `open` makes sure that the files are there.

    Args:
        handle: `ShardHandle`.
    """

    def __init__(self, handle: ShardHandle) -> None:
        self.handle = handle

    @classmethod
    def open(cls, handle: ShardHandle) -> Shard:
        """A shard whose files are here, complete.

        Raises:
            SpoolMissingError: If they are not.
        """
        for stored in handle.arrays:
            path = os.path.join(handle.path, stored.file)
            if not os.path.isfile(path) or os.path.getsize(path) != stored.nbytes:
                raise SpoolMissingError(
                    f"Shard {handle.index} was written to {handle.path} on host {handle.host}, "
                    f"but {stored.file} is not there, or not whole, on this one."
                )
        return cls(handle)

    @property
    def index(self) -> int:
        """The partition."""
        return self.handle.index

    @property
    def num_examples(self) -> int:
        """Number of rows."""
        return self.handle.num_examples

    @property
    def row_bytes(self) -> float:
        """Memory that one row takes, all arrays together."""
        return sum(_row_bytes(s, max(1, self.num_examples)) for s in self.handle.arrays)

    def read(self, start: int = 0, stop: int | None = None) -> Chunk:
        """Rows `[start, stop)` in the order they are stored, as fresh arrays.

        Raises:
            SpoolMissingError: If the files went away meanwhile.
            ValueError: If there are no such rows.
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
    ) -> Iterator[Window]:
        """One pass over rows `[start, stop)`, every row once.

        Without `rng`, the rows come in the order they are stored. With it they
        are shuffled: all of them if they fit into one window; else every window
        is made of runs of rows from random places, and shuffled within.

        Args:
            batch_size: Integer; all windows but the last have a multiple of it.
            start: Integer, first row.
            stop: Integer, the row to stop before. Defaults to the last one's end.
            rng: `np.random.Generator`; the same state gives the same order.
            window_bytes: Integer, memory that a window should take at most. Defaults to
                128 MiB for all rows in one, else to half of that: two are there while
                one takes the other's place. A window has at least one batch, whatever
                that takes.

        Returns:
            Iterator of `Window`; no window if there are no rows.

        Raises:
            SpoolMissingError: If the files went away meanwhile.
            ValueError: If there are no such rows, or `batch_size` is not positive.
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
            return iter((self._whole(start, stop, rng),))
        return self._parts(start, stop, rows, rows // batch_size, rng)

    def _whole(self, start: int, stop: int, rng: np.random.Generator | None) -> Window:
        window = self.read(start, stop).window()
        window.key = (self.handle.path, start, stop)
        if rng is not None:
            window.order = permutation(stop - start, rng)
        return window

    def _parts(
        self, start: int, stop: int, rows: int, batches: int, rng: np.random.Generator | None
    ) -> Iterator[Window]:
        if rng is None:
            runs = [(start, stop)]
        else:
            length = max(rows // BLOCKS_PER_WINDOW, 1)
            runs = [(low, min(low + length, stop)) for low in range(start, stop, length)]
            runs = [runs[i] for i in rng.permutation(len(runs))]
        for number, ranges in enumerate(cut(runs, rows)):
            window = self._read(ranges).window()
            window.first_batch = number * batches
            if rng is not None:
                window.order = permutation(window.num_examples, rng)
            yield window

    def _range(self, start: int, stop: int | None) -> Range:
        stop = self.num_examples if stop is None else stop
        if not 0 <= start <= stop <= self.num_examples:
            rule = f"a range of rows within the {self.num_examples} of the shard"
            raise invalid("start, stop", rule, (start, stop))
        return start, stop

    def _read(self, ranges: list[Range]) -> Chunk:
        handle = self.handle
        try:
            x, y, weights = (
                [read_ranges(handle.path, stored, ranges) for stored in group]
                for group in (handle.x, handle.y, handle.sample_weight)
            )
        except (FileNotFoundError, TruncatedFileError) as error:
            raise SpoolMissingError(
                f"Shard {handle.index} is no longer whole in {handle.path}: {error}"
            ) from error
        return Chunk(x, y, weights)

    def state_path(self, name: str) -> str:
        """Path for a file or directory beside the shard's own.

        It stays when the shard is written again on this host, and goes away with all
        that was spooled under the same run id.

        Args:
            name: String, a file name.

        Raises:
            ValueError: If it is a path.
        """
        if not name or os.path.basename(name) != name or name in (".", ".."):
            raise invalid("name", "a file name", name)
        folder = os.path.dirname(self.handle.path)
        return os.path.join(folder, f"{name}-{self.handle.index:05d}")

    def delete(self) -> None:
        """Remove the files from this host. Files that are gone already are no error."""
        shutil.rmtree(self.handle.path, ignore_errors=True)

    @classmethod
    def remove(cls, handle: ShardHandle) -> None:
        """Remove a shard's files from this host without opening it."""
        cls(handle).delete()


def permutation(count: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers from 0 to `count - 1` in random order, as int32 when they fit."""
    dtype = np.int32 if count <= np.iinfo(np.int32).max else np.int64
    return rng.permutation(np.arange(count, dtype=dtype))


def cut(runs: list[Range], rows: int) -> Iterator[list[Range]]:
    """Deal runs of rows out into groups of exactly `rows` rows; the last may have fewer."""
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


def _row_bytes(stored: StoredArray, num_examples: int) -> float:
    extra = BYTES_PER_STRING * stored.items if stored.is_text else 0
    return stored.nbytes / num_examples + extra
