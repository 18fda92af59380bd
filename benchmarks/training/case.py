"""Measure one fit of Keras or kspark. `benchmarks.training` starts this as a process."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np

from benchmarks.common import mnist
from benchmarks.common.epoch_clock import EpochClock
from benchmarks.common.model import NUM_WORKERS, build_model
from benchmarks.common.runs import answer


def measured_fit(
    trainer: Any, model: keras.Model, data: list[np.ndarray], case: dict[str, Any]
) -> dict[str, float | None]:
    """Train, and return the seconds that it takes and the accuracy on test rows.

    Args:
        trainer: `SparkModel` or `keras.Model` whose `fit` is called.
        model: `keras.Model` that `trainer` trains.
        data: List of the arrays `x`, `y`, `x_test` and `y_test`.
        case: Dictionary with `batch_size`, `epochs` and `launched`, the moment when the process
            was started.
    """
    x, y, x_test, y_test = data
    clock = EpochClock()
    started = time.perf_counter()
    trainer.fit(x, y, case["batch_size"], case["epochs"], verbose=0, callbacks=[clock])
    whole = time.perf_counter() - started
    _, accuracy = model.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    warm = clock.warm_epochs()
    return {
        "whole": whole,
        "first": clock.first_epoch_after(started),
        "script": clock.first_epoch_after(case["launched"]),
        "warm": float(np.median(warm)) if len(warm) else None,
        "accuracy": accuracy,
    }


class Reshuffled:
    """A `keras.Model` whose `fit` trains one epoch per call, each with a seed of its own.

    Args:
        model: `keras.Model`.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model

    def fit(
        self, x: np.ndarray, y: np.ndarray, batch_size: int, epochs: int, **options: Any
    ) -> None:
        """Train for a number of epochs."""
        for epoch in range(epochs):
            keras.utils.set_random_seed(epoch)
            self._model.fit(x, y, batch_size, epoch + 1, initial_epoch=epoch, **options)


def run_keras(case: dict[str, Any]) -> dict[str, float | None]:
    model = build_model(case["seed"], case.get("steps_per_execution", 1))
    trainer = Reshuffled(model) if case.get("reshuffled") else model
    return measured_fit(trainer, model, mnist.read(case["data"]), case)


def run_kspark(case: dict[str, Any]) -> dict[str, float | None]:
    from kspark import SparkModel
    from kspark.session import local_session

    data, model = mnist.read(case["data"]), build_model(case["seed"])
    spark = local_session(NUM_WORKERS, memory="4g")
    spark_model = SparkModel(
        model, case["mode"], case["frequency"], num_workers=NUM_WORKERS, seed=case["seed"]
    )
    result = measured_fit(spark_model, model, data, case)
    spark.stop()
    report = spark_model.last_fit
    workers = [worker for epoch in report.workers for worker in epoch]
    exchanged = sum(worker["bytes_sent"] + worker["bytes_received"] for worker in workers)
    return {**result, "bytes": exchanged / len(report.epochs)}


def main() -> None:
    engines = {"keras": run_keras, "kspark": run_kspark}
    answer(lambda case: engines[case["engine"]](case))


if __name__ == "__main__":
    main()
