"""A local Spark for engines other than kspark. This module needs no kspark."""

from __future__ import annotations

from pyspark.sql import SparkSession


def local_spark(cores: int, memory: str) -> SparkSession:
    """A session on this machine, without its web page and without warnings."""
    builder = SparkSession.builder.master(f"local[{cores}]")
    settings = {"driver.memory": memory, "ui.enabled": "false", "log.level": "ERROR"}
    for key, value in settings.items():
        builder = builder.config(f"spark.{key}", value)
    return builder.getOrCreate()
