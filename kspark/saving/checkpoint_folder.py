"""The folder of a fit's checkpoints, on any path that Spark can write.

A file gets its name when it is complete, as all files of `filesystem` do. So a driver that is
killed while it writes leaves the checkpoints before, and a hidden part of a file, which the next
fit deletes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from kspark.saving.filesystem import names_in, reading, remove, writing

NAME = re.compile(r"epoch-(\d+)\.zip")
PART = re.compile(r"\.epoch-\d+\.zip\..+")


class CheckpointFolder:
    """The checkpoints of one fit, one file per epoch.

    Args:
        path: String, a local folder, or a URI that Spark can write. It need not exist.
        kept: Integer >= 1, how many of the last checkpoints are kept.
        spark: `SparkSession`, used only for a path with a scheme. Defaults to `None`, the active
            session.
    """

    def __init__(self, path: str, kept: int, spark: SparkSession | None = None) -> None:
        self.path = path.rstrip("/") or path
        self._kept = kept
        self._spark = spark

    def file(self, epochs: int) -> str:
        """Return the path of the checkpoint after a number of epochs."""
        return f"{self.path}/epoch-{epochs}.zip"

    def found(self) -> list[int]:
        """Return the number of epochs of each checkpoint in the folder, sorted."""
        matches = map(NAME.fullmatch, names_in(self.path, spark=self._spark))
        return sorted(int(match[1]) for match in matches if match)

    @contextmanager
    def reading(self, epochs: int) -> Iterator[str]:
        """Provide the name of a local file with the checkpoint, until the block ends.

        Raises:
            OSError: If reading fails.
        """
        with reading(self.file(epochs), spark=self._spark) as local:
            yield local

    @contextmanager
    def writing(self, epochs: int) -> Iterator[str]:
        """Provide the name of a local file to write, which is a checkpoint when the block ends.

        Older checkpoints are deleted afterwards, and parts of files of a driver that was killed.

        Raises:
            OSError: If writing fails.
        """
        with writing(self.file(epochs), overwrite=True, spark=self._spark) as local:
            yield local
        old = [self.file(number) for number in self.found()[: -self._kept]]
        names = names_in(self.path, spark=self._spark)
        parts = [f"{self.path}/{name}" for name in names if PART.fullmatch(name)]
        for path in (*old, *parts):
            remove(path, spark=self._spark)
