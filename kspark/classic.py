"""Names of classic PySpark that its pure client, `pyspark-client`, lacks.

The client serves Spark Connect only: it has no JVM, and so neither RDDs nor the library that calls
Java. There, a class without instances stands for each of these names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "RDD",
    "Broadcast",
    "Py4JError",
    "Py4JJavaError",
    "SparkContext",
    "SparkStageInfo",
    "StatusTracker",
]

if TYPE_CHECKING:
    from py4j.protocol import Py4JError, Py4JJavaError
    from pyspark import RDD, Broadcast, SparkContext, SparkStageInfo, StatusTracker
else:
    try:
        from py4j.protocol import Py4JError, Py4JJavaError
        from pyspark import RDD, Broadcast, SparkContext, SparkStageInfo, StatusTracker
    except ImportError:

        class Py4JError(Exception):
            """Stands for an error of the library that calls Java."""

        class Py4JJavaError(Py4JError):
            """Stands for an exception in Java."""

        class RDD:
            """Stands for an RDD."""

        class Broadcast:
            """Stands for a broadcast."""

        class SparkContext:
            """Stands for a context. None was ever started."""

            _active_spark_context = None
            _gateway = None

        class SparkStageInfo:
            """Stands for the state of a stage."""

        class StatusTracker:
            """Stands for the access to the states of jobs and stages."""
