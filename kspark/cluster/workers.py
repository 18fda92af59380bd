"""Run kspark's functions in Python workers that start with Keras imported."""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession

from kspark.cluster import daemon
from kspark.cluster.remote import is_connect


def use_warm_workers(spark: SparkSession) -> None:
    """Run the session's Python functions from now on in workers of a warm daemon.

    Has an effect where `spark.python.daemon.module` is `kspark.cluster.daemon`. The driver must
    have imported Keras. A session of Spark Connect runs all functions in the workers that its
    server's settings ask for.
    """
    keras = sys.modules.get("keras")
    if keras is not None and not is_connect(spark):
        # Spark starts a function's worker with the environment that the context has when the
        # function is created.
        spark.sparkContext.environment[daemon.BACKEND] = keras.config.backend()
