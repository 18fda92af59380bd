"""Workers that hang or take long: a stopped process, a slow model, an unreachable driver."""

import os
import signal
import socket
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from pyspark import TaskContext

from kspark import SparkModel
from kspark.errors import ClusterError, WorkerError
from kspark.live.driver import LiveFit

TIMEOUT = 3.0

thorough = pytest.mark.thorough

MODES = [
    pytest.param("synchronous", "epoch", {}, marks=thorough),
    ("synchronous", "epoch", {"road": "rounds"}),
    pytest.param("synchronous", "epoch", {"straggler_timeout": 60.0}, marks=thorough),
    ("synchronous", "batch", {}),
    ("asynchronous", 2, {}),
    pytest.param("hogwild", 2, {}, marks=thorough),
]


def data(rows=256):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 6)).astype("float32")
    return x, (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")


def classifier(*layers):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), *layers, keras.layers.Dense(3, activation="softmax")]
    )
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
def test_a_stopped_worker_is_replaced(spark, tmp_path, caplog, mode, frequency, more):
    """A synchronous fit gives the same bytes as one that nobody disturbs."""
    models = {}
    for times in (1, 0) if mode == "synchronous" else (1,):
        stops = StopsOnce(tmp_path / f"stopped-{times}", times=times)
        models[times] = classifier()
        spark_model = SparkModel(
            models[times], mode, frequency, num_workers=2, timeout=TIMEOUT, seed=1, **more
        )
        history = spark_model.fit(
            *data(), batch_size=16, epochs=3, verbose=0, worker_callbacks=[stops]
        )
        assert len(history.history["loss"]) == 3
        if times:
            uncounted = [w.get("uncounted") for w in spark_model.last_fit.workers[1]]
    assert (tmp_path / "stopped-1").read_text() == "."
    if mode == "synchronous":
        assert uncounted == [None, None]
        for a, b in zip(*(m.get_weights() for m in models.values()), strict=True):
            assert a.tobytes() == b.tobytes()
    else:  # The second push of the epoch had not been made.
        assert uncounted == [None, 32]
        assert "metrics of epoch 2 lack 32 of 256 examples" in caplog.text


@keras.saving.register_keras_serializable("tests.hangs")
class Slow(keras.layers.Layer):
    """Takes long for a batch, on one worker. The other one waits for it."""

    def call(self, inputs):
        context = TaskContext.get()
        if context is not None and context.partitionId() == 1:
            time.sleep(2)
        return inputs


def slow_classifier():
    model = classifier(Slow())
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    return model


@pytest.mark.parametrize(
    ("mode", "frequency", "more"),
    [("synchronous", "batch", {}), ("synchronous", "epoch", {"road": "rounds"})],
)
def test_a_step_longer_than_the_timeout_is_no_hang(spark, mode, frequency, more):
    spark_model = SparkModel(
        slow_classifier(), mode, frequency, num_workers=2, timeout=1.0, max_failures=0, **more
    )
    history = spark_model.fit(*data(32), batch_size=16, epochs=1, verbose=0)
    assert len(history.history["loss"]) == 1


def test_a_step_longer_than_the_step_timeout_is_one(spark):
    spark_model = SparkModel(
        slow_classifier(), "asynchronous", num_workers=2, step_timeout=1.0, max_failures=0
    )
    with pytest.raises(WorkerError, match="longer than 1 s .`step_timeout`"):
        spark_model.fit(*data(64), epochs=1, verbose=0)


class Marks(keras.callbacks.Callback):
    """Makes a file when a batch begins."""

    def __init__(self, mark):
        super().__init__()
        self.mark = str(mark)

    def on_train_batch_begin(self, batch, logs=None):
        Path(self.mark).touch()


def test_a_driver_that_cannot_be_reached_is_an_error_before_the_first_batch(
    spark, tmp_path, monkeypatch
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # It does not listen.
        address = closed.getsockname()
        monkeypatch.setattr(LiveFit, "address", address)
        spark_model = SparkModel(classifier(), "asynchronous", num_workers=2)
        told = f"cannot reach the driver at 127.0.0.1:{address[1]} from host .*`port`"
        with pytest.raises(ClusterError, match=told):
            spark_model.fit(*data(), verbose=0, worker_callbacks=[Marks(tmp_path / "begun")])
    assert not (tmp_path / "begun").exists()
