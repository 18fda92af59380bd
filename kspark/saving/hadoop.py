"""Copy a file between a Hadoop file system and the driver's disk.

The driver's JVM copies the file. It runs on the same host as this process, so only the
names of files are exchanged between Python and the JVM.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from kspark.classic import Py4JJavaError
from kspark.errors import ClusterError, invalid


def java(spark: SparkSession) -> tuple[Any, Any]:
    """Return the session's JVM and its Hadoop configuration.

    PySpark has no public access to either. These are the only two private names that
    kspark uses; they are the same in PySpark 3.5, 4.0 and 4.3. The configuration is that of
    the session, not of the context, because the session's DataFrame writer uses it, too: it
    has the credentials set by `spark.conf.set`.

    Args:
        spark: `SparkSession`.

    Returns:
        A pair (JVM view, `org.apache.hadoop.conf.Configuration`).

    Raises:
        ClusterError: If the session has no JVM on the driver (Spark Connect).
    """
    jvm, session = getattr(spark, "_jvm", None), getattr(spark, "_jsparkSession", None)
    if jvm is None or session is None:
        raise ClusterError(
            "A path with a scheme needs a session with a JVM on the driver, "
            f"which {type(spark).__module__}.{type(spark).__qualname__} has not. "
            "Use a local path."
        )
    return jvm, session.sessionState().newHadoopConf()


class HadoopFile:
    """A path of a Hadoop file system.

    Args:
        path: String, a path with a scheme.
        spark: `SparkSession`. Defaults to `None`, the active session.

    Raises:
        ValueError: If there is no session.
        OSError: If the file system does not exist or is not available.
    """

    def __init__(self, path: str, spark: SparkSession | None = None) -> None:
        spark = spark or SparkSession.getActiveSession()
        if spark is None:
            raise invalid("path", "a local path when no SparkSession is active", path)
        self.path = path
        self._jvm, self._conf = java(spark)
        with java_errors(path):
            self._file = self._jvm.org.apache.hadoop.fs.Path(path)
            self._system = self._file.getFileSystem(self._conf)

    def exists(self) -> bool:
        """Whether this path exists."""
        with java_errors(self.path):
            return bool(self._system.exists(self._file))

    def names(self) -> list[str]:
        """Return the names in this folder; none if it does not exist."""
        with java_errors(self.path):
            if not self._system.exists(self._file):
                return []
            return [
                str(status.getPath().getName()) for status in self._system.listStatus(self._file)
            ]

    def delete(self) -> None:
        """Delete this file, or this folder with all that is in it."""
        with java_errors(self.path):
            self._system.delete(self._file, True)

    def download(self, local: str) -> None:
        """Copy this file to the local file `local`."""
        with java_errors(self.path):
            # Keep the source, and write no checksum file beside the copy.
            self._system.copyToLocalFile(False, self._file, self._local(local), True)

    def upload(self, local: str, overwrite: bool) -> None:
        """Copy the local file `local` to this path, completely or not at all.

        Args:
            local: String, name of a local file.
            overwrite: Boolean, whether a file at this path may be replaced.

        Raises:
            FileExistsError: If the path exists and `overwrite` is `False`.
            OSError: If writing fails.
        """
        name = f".{self._file.getName()}.{uuid4().hex}"
        copy = self._jvm.org.apache.hadoop.fs.Path(self._file.getParent(), name)
        with java_errors(self.path):
            try:
                self._system.copyFromLocalFile(False, True, self._local(local), copy)
                self._rename(copy, overwrite)
            finally:
                # After the rename there is nothing to delete, and `delete` returns false.
                with suppress(Py4JJavaError, PySparkException):
                    self._system.delete(copy, False)

    def _rename(self, copy: Any, overwrite: bool) -> None:
        """Rename the copy to this path, atomically if the file system supports it."""
        hadoop = self._jvm.org.apache.hadoop.fs
        try:
            context = hadoop.FileContext.getFileContext(self._file.toUri(), self._conf)
        except Py4JJavaError as error:
            if java_class(error) != "UnsupportedFileSystemException":
                raise
            self._rename_in_two_steps(copy, overwrite)
            return
        option = hadoop.Options.Rename.valueOf("OVERWRITE" if overwrite else "NONE")
        options = self._jvm.java.lang.reflect.Array.newInstance(option.getClass(), 1)
        options[0] = option
        context.rename(copy, self._file, options)

    def _rename_in_two_steps(self, copy: Any, overwrite: bool) -> None:
        """Delete and rename, for file systems that cannot rename onto an existing file."""
        if overwrite and self._system.exists(self._file):
            self._system.delete(self._file, False)
        if not self._system.rename(copy, self._file):
            code = errno.EEXIST if self._system.exists(self._file) else errno.EIO
            raise OSError(code, "The complete copy could not be given its name", self.path)

    def _local(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(f"file:{name}")


@contextmanager
def java_errors(path: str) -> Iterator[None]:
    """Turn exceptions of the JVM into the `OSError` that a local file would raise."""
    try:
        yield
    except Py4JJavaError as error:
        exists = java_class(error) == "FileAlreadyExistsException"
        code = errno.EEXIST if exists else errno.EIO
        raise OSError(code, error.java_exception.toString(), path) from error
    except PySparkException as error:
        raise OSError(errno.EIO, str(error), path) from error


def java_class(error: Py4JJavaError) -> str:
    """Return the name of the exception's Java class, without its package."""
    return str(error.java_exception.getClass().getSimpleName())


def qualified(path: str, spark: SparkSession) -> str:
    """Add the scheme to a path, as Spark's own writers do.

    A path without a scheme is on Spark's default file system, which on a cluster is usually
    not the driver's disk.

    Args:
        path: String, with or without a scheme.
        spark: `SparkSession`.

    Raises:
        ClusterError: If the session has no JVM on the driver.
        OSError: If the file system does not exist or is not available.
    """
    jvm, conf = java(spark)
    with java_errors(path):
        file = jvm.org.apache.hadoop.fs.Path(path)
        return str(file.getFileSystem(conf).makeQualified(file).toString())
