"""Where the driver listens, where executors reach it, and whether they are on its host."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster.remote import is_connect
from kspark.cluster.settings import spark_settings


def bind_host(spark: SparkSession) -> str:
    """Return the address that the driver listens on: `spark.driver.bindAddress`."""
    conf = spark_settings(spark)
    return str(conf.get("spark.driver.bindAddress") or conf.get("spark.driver.host") or "")


def advertised_host(spark: SparkSession, bound: Any) -> str:
    """Return the address at which executors reach the driver: `spark.driver.host`.

    Args:
        spark: `SparkSession`.
        bound: The address that the driver listens on, if Spark does not know another one.
    """
    return str(spark_settings(spark).get("spark.driver.host") or bound)


def tasks_are_here(spark: SparkSession) -> bool:
    """Whether the tasks of a session run on the host of this process, in folders that it reads."""
    return not is_connect(spark) and is_local(spark.sparkContext.master)


def is_local(master: str | None) -> bool:
    """Whether tasks run in processes on the driver's host, as the same user."""
    return master is not None and (master == "local" or master.startswith("local["))
