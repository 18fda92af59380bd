"""One measured fit, of Keras or of kspark, in this process and on one Spark."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STEP, SLOW = 0.002, 0.06
"""Seconds that a batch takes longer on all workers, and on the slow one: about ten times as long
in all, since the rest of a batch takes some 4 ms where all workers share two cores."""

# Workers of Spark are started with this, and find the layer below.
_folders = (str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", ""))
os.environ["PYTHONPATH"] = os.pathsep.join(folder for folder in _folders if folder)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(HERE.parent)]

import keras  # noqa: E402
import numpy as np  # noqa: E402
from convergence_case import Case  # noqa: E402
from convergence_data import Rows, arranged, held_out  # noqa: E402

from kspark import SparkModel  # noqa: E402
from kspark.errors import KSparkError  # noqa: E402
from kspark.session import local_session  # noqa: E402

UNITS = {"mnist": 64, "adult": 32}


@keras.saving.register_keras_serializable("benchmarks")
class Slowed(keras.layers.Layer):
    """Takes its time over every batch, and far more over those of the first partition."""

    def call(self, inputs: Any) -> Any:
        """The inputs, a little later."""
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
    """A Spark with so many slots, unless it runs."""
    local_session(slots)


def build_model(case: Case, features: int, classes: int, seed: int) -> keras.Model:
    """A perceptron with one hidden layer."""
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
    """Accuracy, bytes per example and seconds of one fit, or `{"failed": reason}`."""
    x, y, x_test, y_test = held_out(rows) if case.tuning else rows
    classes = int(y.max()) + 1
    x, y = arranged(x, y, case.rows, case.shards)
    model = build_model(case, x.shape[1], classes, seed)
    started = time.perf_counter()
    try:
        told = fit(model, x, y, case, seed)
    except KSparkError as error:
        return {"failed": str(error).splitlines()[0][:120]}
    seconds = time.perf_counter() - started
    outputs = keras.ops.convert_to_numpy(model(x_test))
    accuracy = float(np.mean(outputs.argmax(axis=1) == y_test))
    return {"accuracy": accuracy, "seconds": seconds, **told}


def fit(model: keras.Model, x: np.ndarray, y: np.ndarray, case: Case, seed: int) -> dict[str, Any]:
    """Train, and tell what the report says."""
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
    spark_model.fit(x, y, epochs=case.epochs, verbose=0, **scaling)
    return facts(spark_model.last_fit, len(x))


def facts(report: Any, num_examples: int) -> dict[str, Any]:
    """What a fit's report tells: bytes per example, staleness, how slow the slowest was."""
    workers = [worker for epoch in report.workers for worker in epoch]
    exchanged = sum(w["bytes_sent"] + w["bytes_received"] for w in workers)
    staleness = [value for epoch in report.epochs for value in epoch.staleness]
    return {
        "bytes": exchanged / (num_examples * len(report.epochs)),
        "staleness": float(np.mean(staleness)) if staleness else None,
        "slowness": slowness(workers),
    }


def slowness(workers: list[Mapping[str, Any]]) -> float:
    """How many times as long as the median worker the slowest one computed."""
    totals: dict[int, float] = {}
    for worker in workers:
        busy = worker["seconds"] - worker["waiting"]
        totals[worker["shard"]] = totals.get(worker["shard"], 0.0) + busy
    seconds = list(totals.values())
    return max(seconds) / float(np.median(seconds))
