"""TFRecord files: what their records hold, where they are, and who reads which."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql.types import ArrayType, DataType, FloatType, LongType, StringType

from kspark.files.listing import DataFile, below, matches
from kspark.files.paths import resolve

TYPES: dict[str, DataType] = {
    "float32": FloatType(),
    "int64": LongType(),
    "string": StringType(),
}
"""The dtypes that a `tf.train.Example` has, and Spark's types."""


@dataclass(frozen=True)
class Feature:
    """A part of each record, an array of one shape.

    Attributes:
        name: String.
        shape: Tuple of integers.
        dtype: String, a key of `TYPES`.
        default: What records without it have: a value, or nested lists; `None` if all have it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    default: Any = None

    @property
    def kind(self) -> DataType:
        """Spark's type for it."""
        kind = TYPES[self.dtype]
        for _ in self.shape:
            kind = ArrayType(kind)
        return kind


@dataclass(frozen=True)
class RecordFiles:
    """TFRecord files, and what their records hold. `kspark.data.tfrecord` makes it.

    Attributes:
        paths: Tuple of strings: files, folders or patterns.
        features: Tuple of `Feature`.
        compression: String, `""`, `"GZIP"` or `"ZLIB"`.
    """

    paths: tuple[str, ...]
    features: tuple[Feature, ...]
    compression: str = ""


@dataclass(frozen=True)
class Share:
    """What a worker reads of a file: one of `parts` equal, consecutive parts of its records.

    Attributes:
        file: `DataFile`.
        part: Integer, from 0 on. Defaults to `0`.
        parts: Integer. Defaults to `1`: the whole file.
    """

    file: DataFile
    part: int = 0
    parts: int = 1


def list_records(paths: Sequence[str]) -> list[DataFile]:
    """Find the files of paths, in the order of the paths, and sorted by name in each folder.

    Raises:
        FileNotFoundError: If a path does not exist, or no file matches it.
        UnreachableError: If the file system of a path is unknown.
    """
    found: list[DataFile] = []
    for path in paths:
        here = [file for named in matches(resolve(path)) for file in below(named)]
        if not here:
            raise FileNotFoundError(errno.ENOENT, "There are no TFRecord files", path)
        found += here
    return found


def divide_records(files: Sequence[DataFile], count: int) -> list[tuple[Share, ...]]:
    """Divide files among workers, in their order and evenly by bytes.

    With fewer files than workers, several of them share a file.

    Args:
        files: Sequence of `DataFile`.
        count: Integer >= 1, number of workers.

    Returns:
        List of one tuple of `Share` per worker.
    """
    sizes = [1 if file.version is None else max(1, file.version[0]) for file in files]
    if count > len(files):
        parts = [1] * len(files)
        for _ in range(count - len(files)):
            largest = max(range(len(files)), key=lambda at: sizes[at] / parts[at])
            parts[largest] += 1
        pairs = zip(files, parts, strict=True)
        return [(Share(file, part, of),) for file, of in pairs for part in range(of)]
    shares: list[tuple[Share, ...]] = []
    start, done, total = 0, 0, sum(sizes)
    for worker in range(count):
        stop, last = start, len(files) - (count - worker - 1)  # Each gets at least one.
        while stop < last and (
            stop == start
            or worker == count - 1
            or done + sizes[stop] / 2 <= total * (worker + 1) / count
        ):
            done += sizes[stop]
            stop += 1
        shares.append(tuple(map(Share, files[start:stop])))
        start = stop
    return shares
