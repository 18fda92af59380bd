"""The number of rows that running tasks are done with, where they run on the driver's host."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import ClassVar

from pyspark.sql import SparkSession

from kspark import temporary
from kspark.cluster.addresses import tasks_are_here
from kspark.worker.counting import rows_counted


class RowCounts:
    """A folder in which the tasks of one call count their rows.

    Args:
        name: String, how the name of the folder ends. Defaults to `None`, a new name.

    Attributes:
        folder: String, for the tasks.
    """

    def __init__(self, name: str | None = None) -> None:
        self._made = temporary.Folder(temporary.ROWS, name)
        self.folder = str(self._made.path)

    def read(self) -> int:
        """Return the number of rows that all tasks together are done with."""
        return rows_counted(self.folder)

    def close(self) -> None:
        """Remove the folder. Tasks that begin later count nothing."""
        self._made.remove()


class ScoringCounts:
    """The rows that tasks of lazy DataFrames are done with while this object is open.

    Those that are open at the same time share one folder, which the last one removes.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _shared: ClassVar[RowCounts | None] = None
    _users: ClassVar[int] = 0

    def __init__(self) -> None:
        kind, self._is_open = ScoringCounts, True
        with kind._lock:
            if kind._shared is None:
                kind._shared = RowCounts(scoring_name())
            kind._users += 1
            self._counts = kind._shared
        self._before = self._counts.read()

    def read(self) -> int:
        """Return the number of rows since this object was made."""
        return self._counts.read() - self._before

    def close(self) -> None:
        """Look no more. May be called more than once."""
        kind = ScoringCounts
        with kind._lock:
            if not self._is_open:
                return
            self._is_open = False
            kind._users -= 1
            if not kind._users:
                kind._shared = None
                self._counts.close()


@contextmanager
def row_counts(spark: SparkSession, shown: bool) -> Iterator[RowCounts | None]:
    """Let tasks count their rows inside the block, if they can and somebody looks.

    Args:
        spark: `SparkSession`.
        shown: Boolean, whether the count is shown.
    """
    if not (shown and tasks_are_here(spark)):
        yield None
        return
    counts = RowCounts()
    try:
        yield counts
    finally:
        counts.close()


@functools.cache
def scoring_name() -> str:
    """Return how the name of the folder ends in which the tasks of lazy DataFrames count.

    A lazy DataFrame does not know whether anybody will look when it is computed. So the folder is
    always the same, and exists only while somebody looks, see `ScoringCounts`.
    """
    return uuid.uuid4().hex


def scoring_folder(spark: SparkSession) -> str:
    """Return the folder in which the tasks of lazy DataFrames count; `""` if they cannot."""
    if not tasks_are_here(spark):
        return ""
    return str(Path(gettempdir(), temporary.ROWS + scoring_name()))
