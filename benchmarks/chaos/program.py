"""The driver of a scenario: a fit on two executors. It runs in a process of its own.

It prints a line `epoch N` when an epoch begins. Its result is a JSON file.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
from pathlib import Path

import keras
import numpy as np
from pyspark import TaskContext

from benchmarks.chaos.scenarios import EPOCHS, TIMEOUT
from kspark import SparkModel
from kspark.errors import KSparkError
from kspark.live.shared_gradients import SharedGradients
from kspark.live.shared_memory import SharedWeights
from kspark.live.transport import AggregatorClient
from kspark.session import local_session
from kspark.worker.state import ShardState

ROWS, BATCH, WORKERS = 256, 8, 2
CONFIG = {
    "spark.task.maxFailures": 4,
    "spark.storage.decommission.enabled": "true",
    "spark.executor.memory": "600m",
}


class Announces(keras.callbacks.Callback):
    """Says on standard output that an epoch begins."""

    def on_epoch_begin(self, epoch, logs=None):
        """Print the line that the parent waits for."""
        print(f"epoch {epoch}", flush=True)


class DiesAfterPush(keras.callbacks.Callback):
    """Ends the process of a shard after its first exchange of an epoch, or when its state is saved.

    Args:
        epoch: Integer.
        died: String, path of the file that says that it happened. It happens once.
    """

    def __init__(self, epoch, died):
        super().__init__()
        self.epoch, self.died = epoch, died

    def on_epoch_begin(self, epoch, logs=None):
        """From now on, the exchanges of this process end it."""
        context = TaskContext.get()
        if epoch != self.epoch or context is None or context.partitionId() != 0:
            return
        exchanges = (
            (AggregatorClient, "push"),
            (AggregatorClient, "reduce"),
            (SharedGradients, "exchange"),
            (SharedWeights, "add"),
            (ShardState, "save"),
        )
        if not Path(self.died).exists():
            for kind, name in exchanges:
                setattr(kind, name, followed(getattr(kind, name), self.die))

    def die(self):
        """End the process, unless another one was ended."""
        try:
            Path(self.died).touch(exist_ok=False)
        except FileExistsError:
            return
        os._exit(1)


def followed(function, action):
    """Return a function that does the same, and something else afterwards."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        action()
        return result

    return wrapper


class Slow(keras.callbacks.Callback):
    """Makes an epoch take long enough for a fault in the middle of it."""

    def on_train_batch_end(self, batch, logs=None):
        """Wait."""
        threading.Event().wait(0.05)


def minus_sum(y_true, y_pred):
    """A loss whose gradient is the same for every row, whatever the weights are."""
    return -keras.ops.sum(y_pred, axis=-1)


def counting():
    """A model with a weight per row: the number of times that the row was trained and merged."""
    model = keras.Sequential(
        [keras.Input((ROWS,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(keras.optimizers.SGD(float(BATCH)), minus_sum)
    return model, np.eye(ROWS, dtype="float32"), np.zeros((ROWS, 1), "float32")


def classifier():
    """A perceptron with Adam, and rows that it learns in six epochs."""
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS * 4, 6)).astype("float32")
    y = (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model, x, y


def listening() -> set[str]:
    """The sockets of this process that listen."""
    own = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    tables = [Path(f"/proc/self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


def left(ports: set[str]) -> list[str]:
    """What the fit has left behind in this process."""
    threads = [t.name for t in threading.enumerate() if t.name.startswith("kspark")]
    return [f"thread {name}" for name in threads] + [f"port {p}" for p in listening() - ports]


def run(case: dict) -> dict:
    """Fit, and say how the model is."""
    more = {"spark.decommission.enabled": "true"} if case["fault"] == "decommission" else {}
    spark = local_session(
        1, executors=WORKERS, memory="600m", config={**CONFIG, **more, **case["config"]}
    )
    ports = listening()
    model, x, y = counting() if case["counts"] else classifier()
    beside = [Slow()] if case["counts"] else []
    if case["fault"] == "die after a push":
        beside.append(DiesAfterPush(case["epoch"], case["died"]))
    options = {"checkpoint": case["checkpoint"], "resume": True} if case["checkpoint"] else {}
    rule = {} if case["mode"] == "synchronous" else {"server_optimizer": "average"}
    trained = SparkModel(
        model,
        case["mode"],
        case["frequency"],
        num_workers=WORKERS,
        timeout=TIMEOUT,
        **rule,
        **case["settings"],
    )
    result: dict = {}
    try:
        trained.fit(
            x,
            y,
            epochs=EPOCHS,
            batch_size=BATCH if case["counts"] else 32,
            verbose=0,
            callbacks=[Announces()],
            worker_callbacks=beside,
            **options,
        )
    except KSparkError as error:
        result["error"] = f"{type(error).__name__}: {error}"[:300]
    else:
        if case["counts"]:
            counts = model.get_weights()[0] / (EPOCHS / WORKERS)
            result["counts"] = [float(counts.min()), float(counts.mean()), float(counts.max())]
        else:
            result["accuracy"] = float(model.evaluate(x, y, verbose=0)[1])
    result["left"] = left(ports)
    spark.stop()
    return result


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    Path(given["result"]).write_text(json.dumps(run(given)), encoding="utf-8")
