"""Where a model file lives, seen as a local file for as long as it is written or read.

A path without a scheme, or with `file:`, is a file of the driver's own disk; it
needs no Spark. Every other scheme (`hdfs:`, `s3a:`, `abfss:`, `gs:`, `viewfs:`)
goes through the Hadoop `FileSystem` of the session's JVM, with the session's
settings, so that whatever Spark can write is a place for a model.

Only the driver touches the file. A reader sees the old file or the new one,
never a part of one: the new file gets its name when it is complete.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from kspark.saving.hadoop import HadoopFile

# Two letters at least, so that a Windows drive is no scheme; and a slash, so
# that `run:3.keras` is the name of a local file.
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/")
LOCAL = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)


@contextmanager
def writing(
    path: str, *, overwrite: bool = False, spark: SparkSession | None = None
) -> Iterator[str]:
    """Give a local file name to write to; the file becomes `path` when the block ends.

    If the block raises, `path` is as it was before and nothing else is left.

    Args:
        path: String, a local path, or a path with a scheme that Spark can write.
        overwrite: Boolean, whether a file that is already there may be replaced.
        spark: `SparkSession` or `None`. Only asked for a path with a scheme;
            `None` takes the active session.

    Yields:
        String, the name of a local file that does not exist yet, with the same
        extension as `path`.

    Raises:
        FileExistsError: If `path` exists and `overwrite` is false.
        OSError: If the file system refuses.
    """
    if is_remote(path):
        remote = HadoopFile(path, spark)
        protect(remote.exists(), path, overwrite)
        with tempfile.TemporaryDirectory(prefix="kspark-") as directory:
            local = unnamed(directory, path)
            yield local
            remote.upload(local, overwrite)
        return
    target = os.path.realpath(local_path(path))
    protect(os.path.exists(target), path, overwrite)
    parent, name = os.path.split(target)
    os.makedirs(parent, exist_ok=True)
    # Beside the target, because a rename is atomic only inside one file system.
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=parent) as directory:
        local = unnamed(directory, path)
        yield local
        # Asked again: somebody else may have saved while the block ran.
        protect(os.path.exists(target), path, overwrite)
        os.replace(local, target)


@contextmanager
def reading(path: str, *, spark: SparkSession | None = None) -> Iterator[str]:
    """Give the name of a local file with the content of `path`, until the block ends.

    Args:
        path: String, a local path, or a path with a scheme that Spark can read.
        spark: `SparkSession` or `None`. Only asked for a path with a scheme;
            `None` takes the active session.

    Yields:
        String, `path` itself if it is local, else the name of a temporary copy.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the file system refuses.
    """
    if not is_remote(path):
        local = local_path(path)
        if not os.path.exists(local):
            raise missing(path)
        yield local
        return
    remote = HadoopFile(path, spark)
    if not remote.exists():
        raise missing(path)
    with tempfile.TemporaryDirectory(prefix="kspark-") as directory:
        local = unnamed(directory, path)
        remote.download(local)
        yield local


def is_remote(path: str) -> bool:
    """Whether `path` has a scheme other than `file:`."""
    scheme = SCHEME.match(path)
    return scheme is not None and scheme[1].lower() != "file"


def local_path(path: str) -> str:
    """`path` without `file:`. As in Hadoop, percent signs stand for themselves."""
    return LOCAL.sub("", path, count=1) if SCHEME.match(path) else path


def unnamed(directory: str, path: str) -> str:
    """A file in `directory` that only shares the extension with `path`."""
    return os.path.join(directory, "model" + os.path.splitext(path)[1])


def protect(exists: bool, path: str, overwrite: bool) -> None:
    """Refuse to go on where a file would be lost."""
    if exists and not overwrite:
        raise FileExistsError(
            errno.EEXIST, "The file exists; `overwrite=True` would replace it", path
        )


def missing(path: str) -> FileNotFoundError:
    """The error for a file that is not there."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
