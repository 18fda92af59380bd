"""One file of a Hadoop file system, moved to and from the driver's disk.

The JVM that copies is the driver's own, on the same host as this process, so
the bytes stream from disk to file system inside it: nothing but file names
crosses to Python, however large the model is.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from kspark.errors import ClusterError, invalid


def java(spark: SparkSession) -> tuple[Any, Any]:
    """The session's JVM and its Hadoop configuration.

    PySpark has no public way to either. These two names are the only private
    ones in kspark; they are the same in PySpark 3.5, 4.0 and 4.3. The session's
    own configuration, and not the context's, because that is what its
    DataFrame writer uses: credentials given with `spark.conf.set` count.

    Args:
        spark: `SparkSession`.

    Returns:
        A pair (JVM view, `org.apache.hadoop.conf.Configuration`).

    Raises:
        ClusterError: If the session has no JVM in reach (Spark Connect).
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
        spark: `SparkSession` or `None`, which takes the active session.

    Raises:
        ValueError: If there is no session.
        OSError: If there is no such file system, or it cannot be reached.
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
        """Whether there is something at this path."""
        with java_errors(self.path):
            return bool(self._system.exists(self._file))

    def download(self, local: str) -> None:
        """Copy this file to the local file `local`."""
        with java_errors(self.path):
            # Not the source's end, and no checksum file beside the copy.
            self._system.copyToLocalFile(False, self._file, self._local(local), True)

    def upload(self, local: str, overwrite: bool) -> None:
        """Copy the local file `local` to this path, which gets it whole or not at all.

        Args:
            local: String, name of a local file.
            overwrite: Boolean, whether a file at this path may be replaced.

        Raises:
            FileExistsError: If there is one and it may not.
            OSError: If the file system refuses.
        """
        name = f".{self._file.getName()}.{uuid4().hex}"
        copy = self._jvm.org.apache.hadoop.fs.Path(self._file.getParent(), name)
        with java_errors(self.path):
            try:
                self._system.copyFromLocalFile(False, True, self._local(local), copy)
                self._rename(copy, overwrite)
            finally:
                # Nothing to delete once the copy has its name; then this is false, no error.
                with suppress(Py4JJavaError, PySparkException):
                    self._system.delete(copy, False)

    def _rename(self, copy: Any, overwrite: bool) -> None:
        """Give the copy this file's name, in one step where the file system can."""
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
        """For file systems that know no renaming onto an existing file."""
        if overwrite and self._system.exists(self._file):
            self._system.delete(self._file, False)
        if not self._system.rename(copy, self._file):
            code = errno.EEXIST if self._system.exists(self._file) else errno.EIO
            raise OSError(code, "The complete copy could not be given its name", self.path)

    def _local(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(f"file:{name}")


@contextmanager
def java_errors(path: str) -> Iterator[None]:
    """Turn what the JVM raises into the `OSError` that a local file would have raised."""
    try:
        yield
    except Py4JJavaError as error:
        exists = java_class(error) == "FileAlreadyExistsException"
        code = errno.EEXIST if exists else errno.EIO
        raise OSError(code, error.java_exception.toString(), path) from error
    except PySparkException as error:
        raise OSError(errno.EIO, str(error), path) from error


def java_class(error: Py4JJavaError) -> str:
    """The exception's class on the Java side, without its package."""
    return str(error.java_exception.getClass().getSimpleName())


def qualified(path: str, spark: SparkSession) -> str:
    """A path with its scheme, as Spark's own writers understand it.

    Without a scheme they mean the default file system, which on a cluster is seldom the
    driver's disk.

    Args:
        path: String, with a scheme or without.
        spark: `SparkSession`.

    Raises:
        ClusterError: If the session has no JVM in reach.
        OSError: If there is no such file system, or it cannot be reached.
    """
    jvm, conf = java(spark)
    with java_errors(path):
        file = jvm.org.apache.hadoop.fs.Path(path)
        return str(file.getFileSystem(conf).makeQualified(file).toString())
