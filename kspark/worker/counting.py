"""Count the rows of an evaluation or a prediction while it runs, for the driver on the same host.

Spark tells the driver nothing of a task before it ends. Where driver and tasks run on one host, a
task writes its count into a file, and the driver reads it. Elsewhere nothing is counted.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from pyspark import TaskContext

from kspark.shards import Window, num_batches
from kspark.worker.progress import Reporter

WRITE_SECONDS = 0.1
"""Seconds between two changes of a file."""

BYTES = 8

T = TypeVar("T")


class RowCounter:
    """Writes the number of rows that one task is done with to a file.

    Args:
        folder: String, the folder of the counts. Nothing is counted if it is empty or does not
            exist, as before and after a call that shows its progress.
        key: String, which names what is done with the rows. A row may be scored by two models.
    """

    def __init__(self, folder: str, key: str) -> None:
        self._file: int | None = None
        self._done = 0
        self._written = time.perf_counter()
        if folder:
            with contextlib.suppress(OSError):
                # A task that runs again starts with 0, in the same file.
                flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
                name = f"{task_name()}-{zlib.crc32(key.encode()):x}"
                self._file = os.open(os.path.join(folder, name), flags, 0o600)
        self._pieces = Reporter(None if self._file is None else lambda report, arrays: None)

    def parts(self, window: Window, batch_size: int) -> Iterator[Window]:
        """Divide a window into parts of whole batches, and count each when the next is asked for.

        A part takes about half a second at most, as while a fit shows its progress.
        """
        stop = num_batches(window.num_examples, batch_size)
        if self._file is None or stop < 2 or window.order is not None:
            yield window
            self.add(window.num_examples)
            return
        for first, last in self._pieces.pieces(0, stop):
            part = rows_of(window, first * batch_size, last * batch_size)
            yield part
            self.add(part.num_examples)

    def add(self, num_examples: int) -> None:
        """Count rows."""
        self._done += num_examples
        now = time.perf_counter()
        if self._file is not None and now - self._written >= WRITE_SECONDS:
            self._written = now
            self._write()

    def __enter__(self) -> RowCounter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the last count."""
        if self._file is not None:
            self._write()
            os.close(self._file)
            self._file = None

    def _write(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # The disk is full.
                os.pwrite(self._file, self._done.to_bytes(BYTES, "little"), 0)


def counted(folder: str, key: str, batches: Iterator[T]) -> Iterator[T]:
    """Count the rows of each batch when the next one is asked for.

    Args:
        folder: As for `RowCounter`.
        key: As for `RowCounter`.
        batches: Iterator of record batches, or of tuples of columns.
    """
    with RowCounter(folder, key) as counter:
        for batch in batches:
            yield batch
            rows: Any = batch[0] if isinstance(batch, tuple) else batch
            counter.add(len(rows))


def rows_of(window: Window, start: int, stop: int) -> Window:
    """Return consecutive rows of a window whose rows are in the order of its arrays."""
    x, y, weights = (
        [array[start:stop] for array in group]
        for group in (window.x, window.y, window.sample_weight)
    )
    return replace(window, x=x, y=y, sample_weight=weights)


def task_name() -> str:
    """Return a name that two attempts of one task share, and no other task of the application."""
    context = TaskContext.get()
    return "0-0" if context is None else f"{context.stageId()}-{context.partitionId()}"


def rows_counted(folder: str) -> int:
    """Return the number of rows that all tasks together are done with, also those that ended.

    Where several models score the same rows, it is the largest number of one of them.
    """
    counts: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            stage, _, rest = entry.name.partition("-")
            _, _, key = rest.partition("-")
            if stage.isdigit():
                counts[key] = counts.get(key, 0) + read_count(entry.path)
    return max(counts.values(), default=0)


def read_count(path: str) -> int:
    """Return the count in a file, 0 if it was not written yet."""
    try:
        with open(path, "rb") as file:
            return int.from_bytes(file.read(BYTES), "little")
    except OSError:
        return 0
