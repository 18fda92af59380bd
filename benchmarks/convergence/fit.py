"""Measure one fit of Keras or kspark, in this process and on one local Spark."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from benchmarks.convergence.case import Case
from benchmarks.convergence.data import Rows, arranged, held_out
from kspark import SparkModel
from kspark.errors import KSparkError
from kspark.session import local_session

STEP, SLOW = 0.002, 0.06
"""Seconds that `Slowed` adds to a batch, on most workers and on the slow one. The rest of a batch
takes about 4 ms if all workers share two cores, so that the slow worker takes about ten times as
long as the others."""

UNITS = {"mnist": 64, "adult": 32}


@keras.saving.register_keras_serializable("benchmarks")
class Slowed(keras.layers.Layer):
    """Adds a delay to every batch on a worker, a longer one on that of the first partition."""

    def call(self, inputs: Any) -> Any:
        """Return the inputs after the delay."""
        import tensorflow as tf
        from pyspark import TaskContext

        context = TaskContext.get()
        if context is None:
            return inputs
        seconds = STEP if context.partitionId() else SLOW

        def late(values: np.ndarray) -> np.ndarray:
            time.sleep(seconds)
            return values

        return tf.ensure_shape(tf.numpy_function(late, [inputs], inputs.dtype), inputs.shape)


def start(slots: int) -> None:
    """Start a local Spark with so many slots, unless it runs already."""
    local_session(slots)


def build_model(case: Case, features: int, classes: int, seed: int) -> keras.Model:
    """A compiled perceptron with one hidden layer."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((features,)),
        keras.layers.Dense(UNITS[case.dataset], activation="relu"),
        keras.layers.Dense(classes, activation="softmax"),
    ]
    if case.slow:
        layers.insert(1, Slowed())
    model = keras.Sequential(layers)
    kind = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[case.optimizer]
    model.compile(
        kind(case.learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def measure(case: Case, seed: int, rows: Rows) -> dict[str, Any]:
    """Train and test a model.

    Returns:
        A dictionary with accuracy, seconds and the figures of `figures_of`, or
        `{"failed": reason}`.
    """
    x, y, x_test, y_test = held_out(rows) if case.tuning else rows
    classes = int(y.max()) + 1
    x, y = arranged(x, y, case.rows, case.shards)
    model = build_model(case, x.shape[1], classes, seed)
    started = time.perf_counter()
    try:
        figures = fit(model, x, y, case, seed)
    except KSparkError as error:
        return {"failed": str(error).splitlines()[0][:120]}
    seconds = time.perf_counter() - started
    outputs = keras.ops.convert_to_numpy(model(x_test))
    accuracy = float(np.mean(outputs.argmax(axis=1) == y_test))
    return {"accuracy": accuracy, "seconds": seconds, **figures}


def fit(model: keras.Model, x: np.ndarray, y: np.ndarray, case: Case, seed: int) -> dict[str, Any]:
    """Train a model. Returns the figures of the fit's report, which plain Keras does not have."""
    if case.mode == "keras":
        model.fit(x, y, case.batch_size, case.epochs, verbose=0)
        return {}
    spark_model = SparkModel(
        model,
        case.mode,
        case.frequency,
        num_workers=case.shards,
        server_optimizer={"class_name": case.rule, "config": dict(case.rule_config)},
        compression=case.compression,
        batch_size=case.batch_size,
        seed=seed,
        on_nonfinite="ignore",
    )
    scaling: dict[str, Any] = {}
    if case.scale_lr is not None:
        scaling = {"scale_lr": case.scale_lr, "warmup_epochs": 1}
    spark_model.fit(x, y, epochs=case.epochs, verbose=0, reshuffle=case.reshuffle, **scaling)
    return figures_of(spark_model.last_fit, len(x))


def figures_of(report: Any, num_examples: int) -> dict[str, Any]:
    """Bytes per example, mean staleness and slowness from the report of a fit."""
    workers = [worker for epoch in report.workers for worker in epoch]
    exchanged = sum(w["bytes_sent"] + w["bytes_received"] for w in workers)
    staleness = [value for epoch in report.epochs for value in epoch.staleness]
    return {
        "bytes": exchanged / (num_examples * len(report.epochs)),
        "staleness": float(np.mean(staleness)) if staleness else None,
        "slowness": slowness(workers),
    }


def slowness(workers: list[Mapping[str, Any]]) -> float:
    """Seconds that the slowest worker computed, divided by those of the median worker."""
    totals: dict[int, float] = {}
    for worker in workers:
        busy = worker["seconds"] - worker["waiting"]
        totals[worker["shard"]] = totals.get(worker["shard"], 0.0) + busy
    seconds = list(totals.values())
    return max(seconds) / float(np.median(seconds))
