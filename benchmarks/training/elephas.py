"""Measure one fit of Elephas. `benchmarks.training` starts this with the Python of Elephas.

Nothing here imports kspark. Elephas does not report its epochs, so that only the whole fit is
measured.
"""

from __future__ import annotations

import time
from typing import Any

import keras
from elephas.spark_model import AsynchronousSparkModel
from elephas.spark_model import SparkModel as SynchronousSparkModel
from elephas.utils.rdd_utils import to_simple_rdd

from benchmarks.common import mnist
from benchmarks.common.local_spark import local_spark
from benchmarks.common.model import NUM_WORKERS, build_model
from benchmarks.common.runs import answer


def spark_model(model: keras.Model, case: dict[str, Any]) -> SynchronousSparkModel:
    """Elephas' model for a mode and frequency, with defaults for everything else."""
    if case["mode"] == "synchronous":
        return SynchronousSparkModel(model, num_workers=NUM_WORKERS, batch_size=case["batch_size"])
    return AsynchronousSparkModel(
        model,
        num_workers=NUM_WORKERS,
        batch_size=case["batch_size"],
        mode=case["mode"],
        frequency=case["frequency"],
    )


def run(case: dict[str, Any]) -> dict[str, float | None]:
    x, y, x_test, y_test = mnist.read(case["data"])
    spark = local_spark(NUM_WORKERS, memory="4g")
    distributed = spark_model(build_model(case["seed"]), case)
    started = time.perf_counter()
    # The other engines start from arrays, too, so that making the RDD is part of the fit.
    rdd = to_simple_rdd(spark.sparkContext, x, y)
    distributed.fit(
        rdd, epochs=case["epochs"], batch_size=case["batch_size"], verbose=0, validation_split=0.0
    )
    whole = time.perf_counter() - started
    trained = distributed.master_network
    trained.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    _, accuracy = trained.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    return {"whole": whole, "warm": None, "accuracy": accuracy}


if __name__ == "__main__":
    answer(run)
