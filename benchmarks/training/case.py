"""One measured fit, of Keras or of kspark, in a process of its own.

`training.py` starts it, with one JSON document that says what to run and where
to write the result.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import keras
import mnist
import numpy as np

NUM_WORKERS = 2


class EpochClock(keras.callbacks.Callback):
    """Notes when each epoch ended, callbacks included."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    def warm_epoch(self) -> float | None:
        """Median seconds from one epoch's end to the next one's: the first is left out."""
        return float(np.median(np.diff(self.ends))) if len(self.ends) > 1 else None


def build_model(seed: int, steps_per_execution: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((mnist.SIDE**2,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def measured(
    trainer: Any, model: keras.Model, data: list[np.ndarray], case: dict[str, Any]
) -> dict[str, float | None]:
    """Seconds of a fit and of its warm epochs, and what the model has learnt."""
    x, y, x_test, y_test = data
    clock = EpochClock()
    started = time.perf_counter()
    trainer.fit(x, y, case["batch_size"], case["epochs"], verbose=0, callbacks=[clock])
    whole = time.perf_counter() - started
    _, accuracy = model.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    return {"whole": whole, "warm": clock.warm_epoch(), "accuracy": accuracy}


def run_keras(case: dict[str, Any]) -> dict[str, float | None]:
    model = build_model(case["seed"], case["steps_per_execution"])
    return measured(model, model, mnist.read(case["data"]), case)


def run_kspark(case: dict[str, Any]) -> dict[str, float | None]:
    from kspark import SparkModel
    from kspark.session import local_session

    data, model = mnist.read(case["data"]), build_model(case["seed"])
    spark = local_session(NUM_WORKERS, memory="4g")
    spark_model = SparkModel(
        model, case["mode"], case["frequency"], num_workers=NUM_WORKERS, seed=case["seed"]
    )
    result = measured(spark_model, model, data, case)
    spark.stop()
    return {**result, "bytes": bytes_per_epoch(spark_model.last_fit)}


def bytes_per_epoch(report: Any) -> float:
    """What passed between aggregator and replicas in an epoch, both ways."""
    facts = [worker for epoch in report.workers for worker in epoch]
    return sum(f["bytes_sent"] + f["bytes_received"] for f in facts) / len(report.epochs)


def main() -> None:
    case = json.loads(sys.argv[1])
    run = {"keras": run_keras, "kspark": run_kspark}[case["engine"]]
    Path(case["result"]).write_text(json.dumps(run(case)), encoding="utf-8")


if __name__ == "__main__":
    main()
