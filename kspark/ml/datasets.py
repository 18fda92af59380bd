"""Check the datasets that stages get."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame

from kspark.adapters import Spooled
from kspark.adapters.refusals import shown
from kspark.cluster.running import check_running
from kspark.errors import Described, invalid_type


def check_dataset(dataset: Any) -> None:
    """Refuse data that is no DataFrame, or one of a session that was stopped.

    Raises:
        TypeError: If it is no DataFrame.
        ClusterError: If the session was stopped.
    """
    if isinstance(dataset, Spooled):
        rule = (
            "a Spark DataFrame, and not spooled rows. Train on these with "
            "`SparkModel(model).fit(rows)`, and make a stage of the trained model: "
            '`KerasModel(model, featuresCol="features")`'
        )
        raise invalid_type("dataset", rule, Described(repr(dataset)))
    if not isinstance(dataset, DataFrame):
        rule = (
            "a Spark DataFrame. Make one with `spark.createDataFrame`, or use `SparkModel`, which "
            "also takes arrays, files, spooled rows and functions"
        )
        raise invalid_type("dataset", rule, Described(shown(dataset)))
    check_running(dataset)
