"""One measured pipeline of Elephas, in a process of its own, with the Python that has it.

Started by `inference.py`, like `inference_case.py`, whose model and numbers these are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import mnist
import numpy as np
from elephas.ml.adapter import to_data_frame
from elephas.ml_model import ElephasEstimator
from inference_case import BATCH_SIZE, EPOCHS, first_and_warm, timed
from pyspark.sql import SparkSession
from pyspark.sql.functions import col
from training_case import NUM_WORKERS, build_model


def estimator(seed: int) -> ElephasEstimator:
    """Elephas' stage; labels are one-hot, since it takes no others for several classes."""
    model = build_model(seed)
    stage = ElephasEstimator()
    stage.set_keras_model_config(model.to_json())
    stage.set_optimizer_config(keras.optimizers.serialize(keras.optimizers.Adam()))
    stage.set_loss("categorical_crossentropy")
    stage.set_metrics(["accuracy"])
    stage.set_categorical_labels(True)
    stage.set_nb_classes(10)
    stage.set_epochs(EPOCHS)
    stage.set_batch_size(BATCH_SIZE)
    stage.set_num_workers(NUM_WORKERS)
    stage.set_validation_split(0.0)
    stage.set_verbosity(0)
    stage.set_mode("synchronous")
    return stage


def run(case: dict[str, Any]) -> dict[str, float]:
    x, y, *_ = mnist.read(case["data"])
    builder = SparkSession.builder.master(f"local[{NUM_WORKERS}]")
    for key, value in (("driver.memory", "6g"), ("ui.enabled", "false"), ("log.level", "ERROR")):
        builder = builder.config(f"spark.{key}", value)
    spark = builder.getOrCreate()

    def frame() -> Any:
        made = to_data_frame(spark.sparkContext, x, np.eye(10)[y], categorical=True).cache()
        made.count()
        return made

    build, rows = timed(frame)
    fit, fitted = timed(lambda: estimator(case["seed"]).fit(rows))
    refit, _ = timed(lambda: estimator(case["seed"]).fit(rows))

    def aggregate() -> None:
        scored = fitted.transform(rows)
        scored.select(col("prediction")[0].alias("p")).agg({"p": "avg"}).collect()

    return {"frame": build, "fit": fit, "refit": refit, **first_and_warm(aggregate)}


def main() -> None:
    case = json.loads(sys.argv[1])
    Path(case["result"]).write_text(json.dumps(run(case)), encoding="utf-8")


if __name__ == "__main__":
    main()
