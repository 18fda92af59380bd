"""Write and read a model file on any file system, by way of a local file.

A path without a scheme, or with `file:`, is a file on the driver's disk and needs no
Spark. All other schemes (`hdfs:`, `s3a:`, `abfss:`, `gs:`, `viewfs:`) use the Hadoop
`FileSystem` of the session's JVM, with the settings of the session. So a model can be
saved wherever Spark can write.

Only the driver accesses the file. A new file gets its name when it is complete, so that
a reader sees the old file or the new one, but never an incomplete one.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from kspark.files.paths import is_remote, local_path
from kspark.saving.hadoop import HadoopFile


@contextmanager
def writing(
    path: str, *, overwrite: bool = False, spark: SparkSession | None = None
) -> Iterator[str]:
    """Provide the name of a local file to write, which becomes `path` when the block ends.

    If the block raises, `path` does not change and no other file is left.

    Args:
        path: String, a local path, or a path with a scheme that Spark can write.
        overwrite: Boolean, whether an existing file may be replaced. Defaults to `False`.
        spark: `SparkSession`, used only for a path with a scheme. Defaults to `None`, the
            active session.

    Yields:
        String, the name of a local file that does not exist yet, with the same
        extension as `path`.

    Raises:
        FileExistsError: If `path` exists and `overwrite` is false.
        OSError: If writing fails.
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
        # Check again, because another process may have saved while the block ran.
        protect(os.path.exists(target), path, overwrite)
        os.replace(local, target)


@contextmanager
def reading(path: str, *, spark: SparkSession | None = None) -> Iterator[str]:
    """Provide the name of a local file with the content of `path`, until the block ends.

    Args:
        path: String, a local path, or a path with a scheme that Spark can read.
        spark: `SparkSession`, used only for a path with a scheme. Defaults to `None`, the
            active session.

    Yields:
        String, `path` itself if it is local, else the name of a temporary copy.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If reading fails.
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


def names_in(path: str, *, spark: SparkSession | None = None) -> list[str]:
    """Return the names in a folder, sorted. A folder that does not exist has none.

    Args:
        path: String, a local path, or a path with a scheme that Spark can read.
        spark: `SparkSession`, as for `reading`.

    Raises:
        OSError: If the folder cannot be read.
    """
    if is_remote(path):
        return sorted(HadoopFile(path, spark).names())
    local = local_path(path)
    return sorted(os.listdir(local)) if os.path.exists(local) else []


def remove(path: str, *, spark: SparkSession | None = None) -> None:
    """Delete a file, or a folder with all that is in it.

    Args:
        path: String, a local path, or a path with a scheme that Spark can write.
        spark: `SparkSession`, as for `reading`.

    Raises:
        OSError: If it cannot be deleted.
    """
    local = local_path(path)
    if is_remote(path):
        HadoopFile(path, spark).delete()
    elif os.path.isdir(local):
        shutil.rmtree(local)
    else:
        os.unlink(local)


def unnamed(directory: str, path: str) -> str:
    """Return the name of a file in `directory` with the extension of `path`."""
    return os.path.join(directory, "model" + os.path.splitext(path)[1])


def protect(exists: bool, path: str, overwrite: bool) -> None:
    """Refuse to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
    """
    if exists and not overwrite:
        raise FileExistsError(
            errno.EEXIST, "The file exists. Set `overwrite=True` to replace it", path
        )


def missing(path: str) -> FileNotFoundError:
    """Make the error for a file that does not exist."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
