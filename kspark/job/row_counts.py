"""The number of rows that running tasks are done with, where they run on the driver's host."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

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
    always the same, and exists only while somebody looks.
    """
    return uuid.uuid4().hex


def scoring_folder(spark: SparkSession) -> str:
    """Return the folder in which the tasks of lazy DataFrames count; `""` if they cannot."""
    if not tasks_are_here(spark):
        return ""
    return str(Path(gettempdir(), temporary.ROWS + scoring_name()))
