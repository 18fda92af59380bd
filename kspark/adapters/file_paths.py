"""Paths of Parquet files: told from other data, and opened by pyarrow or, else, by Spark."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from datetime import datetime
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from kspark.adapters.array_files import is_array_file
from kspark.cluster.remote import is_connect
from kspark.errors import invalid
from kspark.files.filters import COMPARISONS, MEMBERSHIP, conditions_of
from kspark.files.paths import UnreachableError, is_remote, without_secrets
from kspark.files.table import ParquetFiles

logger = logging.getLogger("kspark")

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
STORES = frozenset(
    (
        *("file", "hdfs", "webhdfs", "viewfs", "ofs", "dbfs", "alluxio", "memory"),
        *("s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "wasb", "wasbs", "az", "adl"),
        *("oss", "cos", "cosn", "obs", "oci"),
    )
)
"""Schemes of file systems. A string in a list with another scheme, as `http`, is text."""


def is_files(value: object, *, labelled: bool = False) -> bool:
    """Whether a value is a path of Parquet files, or a list of such paths.

    Args:
        value: The data of a call.
        labelled: Boolean, whether there are labels beside it, so that a list of strings is text.
            Defaults to `False`.
    """
    if is_array_file(value):
        return False
    if isinstance(value, str | os.PathLike):
        return True
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(
        (isinstance(v, os.PathLike) and not is_array_file(v))
        or (isinstance(v, str) and not labelled and names_files(v))
        for v in value
    )


def names_files(text: str) -> bool:
    """Whether a string in a list is a path, and not text to predict."""
    scheme = SCHEME.match(text)
    if scheme is not None:
        return scheme[1].lower() in STORES
    return text.endswith((".parquet", ".parq"))


def warn_of_paths(value: object) -> None:
    """Warn that a list of strings is taken as text, although files have these names."""
    if not isinstance(value, list | tuple) or not value:
        return
    if all(isinstance(text, str) and text and os.path.exists(text) for text in value):
        logger.warning(
            "The strings %r are read as text, although these files exist. To read the files, "
            "wrap each in `pathlib.Path`.",
            list(value[:3]),
        )


def open_files(spark: SparkSession, value: Any, filters: Any = None) -> ParquetFiles | DataFrame:
    """Find the files of paths, and read their footers.

    Args:
        spark: `SparkSession`.
        value: Path, or list of paths.
        filters: Which rows to use, in pyarrow's form. Defaults to `None`, all.

    Returns:
        `ParquetFiles`; or a DataFrame, if only Spark reaches a path.

    Raises:
        FileNotFoundError: If there are no files.
        ValueError: If a file is not a Parquet file, or `filters` are not usable.
        OSError: If a file cannot be read.
    """
    paths = paths_of(spark, value)
    try:
        return ParquetFiles.open(
            paths,
            filters,
            ignore_case=not is_on(spark, "spark.sql.caseSensitive", "false"),
            infer=is_on(spark, "spark.sql.sources.partitionColumnTypeInference.enabled", "true"),
            zone=str(spark.conf.get("spark.sql.session.timeZone", "UTC")),
        )
    except Exception as error:
        if not can_fall_back(paths, error):
            raise
        log_fallback(paths, error)
        return frame_of(spark, value, filters)


def can_fall_back(paths: Sequence[str], error: Exception) -> bool:
    """Whether Spark may reach paths where pyarrow raised an error.

    Stores of fsspec raise errors of many classes. Those of a wrong argument are the user's.
    """
    is_final = isinstance(error, FileNotFoundError | FileExistsError | ValueError)
    return not is_final and any(map(is_remote, paths))


def frame_of(spark: SparkSession, value: Any, filters: Any) -> DataFrame:
    """Return the rows of paths as Spark reads them, where pyarrow does not reach a path."""
    frame = spark.read.parquet(*paths_of(spark, value))
    return frame if filters is None else frame.where(condition_of(filters))


def log_fallback(paths: Sequence[str], error: Exception) -> None:
    """Log that Spark reads or writes paths, and why."""
    reason = error if isinstance(error, UnreachableError) else f"pyarrow cannot use it: {error}"
    logger.warning(
        "Spark reads and writes %s in place of pyarrow, in an order of the rows of its own. %s",
        list(map(without_secrets, paths)),
        without_secrets(str(reason)),
    )


def paths_of(spark: SparkSession, value: Any) -> list[str]:
    """Return paths as strings. A path without a scheme is on Spark's default file system.

    Raises:
        ValueError: If a path is empty.
    """
    values = [value] if isinstance(value, str | os.PathLike) else value
    if not all(map(os.fspath, values)):
        raise ValueError(f"A path of files must not be empty. Received: {value!r}")
    return [on_default_system(spark, os.fspath(path)) for path in values]


def on_default_system(spark: SparkSession, path: str) -> str:
    """Add the scheme of Spark's default file system to a path without one, unless it is local."""
    if is_remote(path) or path.lower().startswith("file:") or is_connect(spark):
        return path
    from kspark.saving.hadoop import qualified  # Imports Keras, which workers need not do here.

    if not is_remote(qualified("/", spark)):
        return path
    return qualified(path, spark)


def is_on(spark: SparkSession, name: str, default: str) -> bool:
    """Whether a setting of the session is true."""
    return str(spark.conf.get(name, default)).lower() == "true"


def condition_of(filters: Any) -> Column:
    """Return filters, as lists of tuples, as a condition of Spark.

    Raises:
        ValueError: If they are an expression, which Spark does not take.
    """
    if isinstance(filters, pc.Expression):
        raise invalid("filters", "a list of tuples for a path that Spark reads", filters)
    groups = conditions_of(filters)
    return reduce(or_, (reduce(and_, (condition(*one) for one in group)) for group in groups))


def condition(name: str, sign: str, value: Any) -> Column:
    """Return one condition of `filters`."""
    column = F.col("`" + name.replace("`", "``") + "`")
    if sign in MEMBERSHIP:
        found = column.isin([for_spark(one) for one in value])
        return found if sign == "in" else ~found
    return COMPARISONS[sign](column, for_spark(value))


def for_spark(value: Any) -> Any:
    """Return a time without a zone as text, as PySpark takes it for one of this process' zone."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.isoformat(" ")
    return value
