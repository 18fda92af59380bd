"""The settings with which a Spark application was started. On the driver."""

from __future__ import annotations

from typing import Any

from pyspark import SparkConf
from pyspark.sql import SparkSession

_last_read: list[tuple[Any, SparkConf]] = []
"""The last context that was asked, and its settings."""


def spark_settings(spark: SparkSession) -> SparkConf:
    """Return the settings of a classic session's application, to be read only.

    They do not change while the application runs. PySpark copies them from the JVM one by one,
    which takes 10 to 15 ms, so they are read once.
    """
    context = spark.sparkContext
    if not _last_read or _last_read[0][0] is not context:
        _last_read[:] = [(context, context.getConf())]
    return _last_read[0][1]
