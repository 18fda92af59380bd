"""Measure one pipeline of Elephas. `benchmarks.inference` starts this with Elephas' Python.

Nothing here imports kspark.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from elephas.ml.adapter import to_data_frame
from elephas.ml_model import ElephasEstimator
from pyspark.sql.functions import col

from benchmarks.common import mnist
from benchmarks.common.local_spark import local_spark
from benchmarks.common.model import NUM_WORKERS, build_model
from benchmarks.common.runs import answer
from benchmarks.inference.timing import BATCH_SIZE, first_and_warm, timed


def estimator(seed: int, epochs: int) -> ElephasEstimator:
    """Elephas' estimator. It needs one-hot labels for more than two classes."""
    model = build_model(seed)
    stage = ElephasEstimator()
    stage.set_keras_model_config(model.to_json())
    stage.set_optimizer_config(keras.optimizers.serialize(keras.optimizers.Adam()))
    stage.set_loss("categorical_crossentropy")
    stage.set_metrics(["accuracy"])
    stage.set_categorical_labels(True)
    stage.set_nb_classes(10)
    stage.set_epochs(epochs)
    stage.set_batch_size(BATCH_SIZE)
    stage.set_num_workers(NUM_WORKERS)
    stage.set_validation_split(0.0)
    stage.set_verbosity(0)
    stage.set_mode("synchronous")
    return stage


def run(case: dict[str, Any]) -> dict[str, float]:
    x, y, *_ = mnist.read(case["data"])
    spark = local_spark(NUM_WORKERS, memory="6g")

    def frame() -> Any:
        made = to_data_frame(spark.sparkContext, x, np.eye(10)[y], categorical=True).cache()
        made.count()
        return made

    build, rows = timed(frame)
    fit, fitted = timed(lambda: estimator(case["seed"], case["epochs"]).fit(rows))
    refit, _ = timed(lambda: estimator(case["seed"], case["epochs"]).fit(rows))

    def aggregate() -> None:
        scored = fitted.transform(rows)
        scored.select(col("prediction")[0].alias("p")).agg({"p": "avg"}).collect()

    return {"frame": build, "fit": fit, "refit": refit, **first_and_warm(aggregate)}


if __name__ == "__main__":
    answer(run)
