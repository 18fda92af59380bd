"""Workers that hang or take long: a stopped process, a slow model, an unreachable driver."""

import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

from kspark import SparkModel

TIMEOUT = 3.0

MODES = [
    ("synchronous", "epoch", {}),
    ("synchronous", "epoch", {"road": "rounds"}),
    ("synchronous", "epoch", {"straggler_timeout": 60.0}),
    ("synchronous", "batch", {}),
    ("asynchronous", 4, {}),
    ("hogwild", 4, {}),
]


def data(rows=256):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 6)).astype("float32")
    return x, (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")


def classifier():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class StopsOnce(keras.callbacks.Callback):
    """Stops its own process in the middle of an epoch, once per file."""

    def __init__(self, mark, epoch=1, times=1):
        super().__init__()
        self.mark, self.epoch, self.times = str(mark), epoch, times

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch == self.epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now and batch >= 2 and self.params["worker"] == 1:
            mark = Path(self.mark)
            stopped = len(mark.read_text()) if mark.exists() else 0
            if stopped < self.times:
                mark.write_text("." * (stopped + 1))
                os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize(("mode", "frequency", "more"), MODES)
def test_a_stopped_worker_is_replaced_in_every_mode(spark, tmp_path, mode, frequency, more):
    stops = StopsOnce(tmp_path / "stopped")
    spark_model = SparkModel(
        classifier(), mode, frequency, num_workers=2, timeout=TIMEOUT, seed=1, **more
    )
    history = spark_model.fit(*data(), epochs=3, verbose=0, worker_callbacks=[stops])
    assert (tmp_path / "stopped").read_text() == "."
    assert len(history.history["loss"]) == 3
