"""The fits that are compared: of plain Keras and of kspark, on a GPU or on the CPU."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from pyspark.sql import SparkSession

from benchmarks.common import mnist
from benchmarks.common.epoch_clock import EpochClock
from benchmarks.common.model import NUM_WORKERS, build_model
from kspark import SparkModel
from kspark.cluster.accelerators import VISIBLE
from kspark.cluster.daemon import MARK
from kspark.session import local_session

EQUAL_ROWS = 2_048
EQUAL = (
    ("synchronous", "epoch", 2),
    ("synchronous", "batch", 2),
    ("asynchronous", "epoch", 1),
    ("hogwild", "epoch", 1),
)
"""Mode, frequency and workers of fits whose weights are compared. All are deterministic."""

TIMED = (
    ("synchronous", "epoch"),
    ("synchronous", "batch"),
    ("asynchronous", "epoch"),
    ("hogwild", "epoch"),
)
BATCH_SIZE = 64


class Recorder(keras.callbacks.Callback):
    """Worker callback that writes where its replica is, and what its process sees.

    Args:
        folder: String, path to write to.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Write a file of its own."""
        facts = {
            "process": os.getpid(),
            "visible": os.environ.get(VISIBLE),
            "warm": os.environ.get(MARK),
            "place": place_of(self.model),
        }
        Path(self.folder, f"{uuid.uuid4().hex}.json").write_text(json.dumps(facts))


def place_of(model: keras.Model) -> str:
    """The device that holds the first weight of a model, in the words of the backend."""
    return str(getattr(model.weights[0].value, "device", "unknown"))


@contextmanager
def session(address: str | None, folder: str) -> Iterator[SparkSession]:
    """A local cluster whose only executor has a GPU for two tasks; without one, a local session."""
    if address is None:
        spark = local_session(NUM_WORKERS, memory="2g")
    else:
        script = Path(folder, "gpus.sh")
        found = json.dumps({"name": "gpu", "addresses": [address]})
        script.write_text(f"#!/bin/sh\necho '{found}'\n")
        script.chmod(0o755)
        gpus = {
            "spark.worker.resource.gpu.amount": 1,
            "spark.worker.resource.gpu.discoveryScript": script,
            "spark.executor.resource.gpu.amount": 1,
            "spark.task.resource.gpu.amount": 1 / NUM_WORKERS,
        }
        spark = local_session(NUM_WORKERS, executors=1, memory="2g", config=gpus)
    yield spark
    spark.stop()


def timed(trainer: Any, model: keras.Model, data: list[np.ndarray], epochs: int) -> dict[str, Any]:
    """Train, and return the seconds of the whole fit and of a warm epoch, and the accuracy."""
    x, y, x_test, y_test = data
    clock, started = EpochClock(), time.perf_counter()
    trainer.fit(x, y, BATCH_SIZE, epochs, verbose=0, callbacks=[clock])
    whole = time.perf_counter() - started
    _, accuracy = model.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    return {
        "whole": whole,
        "warm": float(np.median(clock.warm_epochs())),
        "accuracy": float(accuracy),
    }


def run_keras(case: dict[str, Any]) -> dict[str, Any]:
    """Measure plain Keras."""
    model = build_model(0)
    found = timed(model, model, mnist.read(case["data"]), case["epochs"])
    return {**found, "place": place_of(model)}


def run_kspark(case: dict[str, Any]) -> dict[str, Any]:
    """Write the weights of the fits to compare, and measure the others if the case has epochs."""
    data, folder = mnist.read(case["data"]), case["folder"]
    Path(folder).mkdir()
    found: dict[str, Any] = {}
    with session(case["address"], folder):
        weights = {
            f"{mode}/{frequency}": trained(mode, frequency, workers, data)
            for mode, frequency, workers in EQUAL
        }
        for mode, frequency in TIMED if case["epochs"] else ():
            model = build_model(0)
            spark_model = SparkModel(model, mode, frequency, num_workers=NUM_WORKERS, seed=0)
            name, kept = f"{mode}/{frequency}", Path(folder, f"{mode}-{frequency}")
            kept.mkdir()
            recorded = Recording(spark_model, Recorder(str(kept)))
            found[name] = timed(recorded, model, data, case["epochs"])
            found[name]["workers"] = [json.loads(f.read_text()) for f in kept.glob("*.json")]
    np.savez(Path(folder, "weights.npz"), **weights)
    return {"fits": found, "driver": place_of(build_model(0))}


class Recording:
    """A `SparkModel` whose `fit` has a worker callback.

    Args:
        spark_model: `SparkModel`.
        recorder: `Recorder`.
    """

    def __init__(self, spark_model: SparkModel, recorder: Recorder) -> None:
        self._model, self._recorder = spark_model, recorder

    def fit(self, *args: Any, **options: Any) -> Any:
        """Train with the callback."""
        return self._model.fit(*args, worker_callbacks=[self._recorder], **options)


def trained(mode: str, frequency: str, workers: int, data: list[np.ndarray]) -> np.ndarray:
    """The weights after two short epochs of plain SGD, as a vector."""
    model = build_model(0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = data[0][:EQUAL_ROWS], data[1][:EQUAL_ROWS]
    spark_model = SparkModel(model, mode, frequency, num_workers=workers, seed=0)
    spark_model.fit(x, y, BATCH_SIZE, 2, verbose=0)
    return np.concatenate([weights.ravel() for weights in model.get_weights()])
