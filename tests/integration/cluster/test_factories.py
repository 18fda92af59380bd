"""Functions that make the data of each worker, on executors some of which are killed."""

import os
import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from kspark import SparkModel

WEIGHTS = np.random.default_rng(1).normal(size=(6, 3))


def classifier():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


class Draws:
    """Rows that are drawn anew in each epoch: 8 batches for worker 0, and 5 for worker 1.

    If `marker` does not exist, the process of worker 1 is killed in its second epoch. The batches
    before come so slowly that some of them are trained by then.
    """

    def __init__(self, marker):
        self.marker = Path(marker)

    def __call__(self, worker, num_workers):
        dies = worker == 1 and not self.marker.exists() and self.is_third_call()
        for number in range(8 if worker == 0 else 5):
            if dies and number in (2, 3):
                time.sleep(1.1)
            if dies and number == 4:
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            x = np.random.normal(size=(16, 6)).astype("float32")
            yield x, (x @ WEIGHTS).argmax(axis=1).astype("int32")

    def is_third_call(self):
        """Whether this is the second epoch. The first call looked at the first batch."""
        with open(self.marker.with_suffix(".calls"), "a+") as calls:
            calls.write(".")
            return calls.tell() == 3


def fitted(marker, mode, frequency):
    spark_model = SparkModel(classifier(), mode, frequency, num_workers=2, seed=1)
    spark_model.fit(Draws(marker), epochs=3, verbose=0)
    return spark_model


@pytest.mark.parametrize("frequency", ["epoch", "batch"])
def test_a_process_that_is_killed_within_a_stream_changes_nothing(cluster, tmp_path, frequency):
    """With plain SGD, because a lost process loses the optimizer state of its epoch."""
    whole = tmp_path / "whole"
    whole.touch()
    expected = fitted(whole, "synchronous", frequency)
    found = fitted(tmp_path / "killed", "synchronous", frequency)
    assert (tmp_path / "killed").exists()
    for a, b in zip(expected.get_weights(), found.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_pushes_before_the_process_was_killed_count_once(cluster, tmp_path):
    spark_model = fitted(tmp_path / "killed", "asynchronous", 2)
    assert (tmp_path / "killed").exists()
    for facts in spark_model.last_fit.epochs:
        assert len(facts.staleness) == facts.merges == 4 + 3
        assert {w["shard"]: w["batches"] for w in facts.workers} == {0: 8, 1: 5}


class KillOnce(keras.callbacks.Callback):
    """Kills the executor of worker 1 at the end of the first epoch."""

    def __init__(self, executors):
        super().__init__()
        self.executors, self.killed = executors, False

    def on_epoch_end(self, epoch, logs=None):
        if not self.killed:
            os.kill(self.executors()[0], signal.SIGKILL)
            self.killed = True


@pytest.mark.parametrize("frequency", [pytest.param("epoch", marks=pytest.mark.thorough), "batch"])
def test_a_worker_goes_on_elsewhere_when_its_executor_is_killed(
    cluster, executors, tmp_path, frequency
):
    whole = tmp_path / "whole"
    whole.touch()
    killer = KillOnce(executors)
    spark_model = SparkModel(classifier(), frequency=frequency, num_workers=2, seed=1)
    spark_model.fit(Draws(whole), epochs=3, verbose=0, callbacks=[killer])
    assert killer.killed
    expected = fitted(whole, "synchronous", frequency)
    for a, b in zip(expected.get_weights(), spark_model.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
