"""One measured fit of Elephas, in a process of its own, with the Python that has it.

Started by `training.py`, like `training_case.py`, whose model and numbers these
are. Elephas tells nothing of its epochs, so only the whole fit is measured.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import keras
import mnist
from elephas.spark_model import AsynchronousSparkModel
from elephas.spark_model import SparkModel as SynchronousSparkModel
from elephas.utils.rdd_utils import to_simple_rdd
from pyspark.sql import SparkSession
from training_case import NUM_WORKERS, build_model


def spark_model(model: keras.Model, case: dict[str, Any]) -> SynchronousSparkModel:
    """Elephas' model for a mode; everything else is its default."""
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
    builder = SparkSession.builder.master(f"local[{NUM_WORKERS}]")
    for key, value in (("driver.memory", "4g"), ("ui.enabled", "false"), ("log.level", "ERROR")):
        builder = builder.config(f"spark.{key}", value)
    spark = builder.getOrCreate()
    distributed = spark_model(build_model(case["seed"]), case)
    started = time.perf_counter()
    # The data arrives as arrays, as in the other cases, so making the RDD is part of the fit.
    rdd = to_simple_rdd(spark.sparkContext, x, y)
    distributed.fit(
        rdd, epochs=case["epochs"], batch_size=case["batch_size"], verbose=0, validation_split=0.0
    )
    whole = time.perf_counter() - started
    trained = distributed.master_network
    trained.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    _, accuracy = trained.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    return {"whole": whole, "warm": None, "accuracy": accuracy}


def main() -> None:
    case = json.loads(sys.argv[1])
    Path(case["result"]).write_text(json.dumps(run(case)), encoding="utf-8")


if __name__ == "__main__":
    main()
