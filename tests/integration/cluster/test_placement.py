"""Shards follow the task slots: an executor is decommissioned while a fit runs."""

import logging
import os
import signal
import time

import keras
import numpy as np
import pytest
from pyspark.sql import SparkSession

from kspark import SparkModel
from kspark.session import local_session

DECOMMISSION = {
    f"spark.{name}.enabled": "true"
    for name in (
        "decommission",
        "storage.decommission",
        "storage.decommission.rddBlocks",
        "storage.decommission.shuffleBlocks",
    )
}


@pytest.fixture(scope="module")
def leaving():
    """Two executors that move their cached blocks before they leave."""
    running = SparkSession.getActiveSession()
    if running is not None:
        running.stop()
    session = local_session(cores=1, executors=2, memory="1g", config=DECOMMISSION)
    session.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(iter).collect()
    yield session
    session.stop()  # Other tests want executors that stay.


class Decommission(keras.callbacks.Callback):
    """Tells an executor to leave after the second epoch, as Kubernetes does, and waits for that."""

    def __init__(self, executors):
        super().__init__()
        self.executors = executors

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            process = self.executors()[0]
            os.kill(process, signal.SIGPWR)
            deadline = time.monotonic() + 60
            while process in self.executors() and time.monotonic() < deadline:
                time.sleep(0.2)
            assert process not in self.executors()


def test_a_fit_outlives_a_decommissioned_executor_with_the_same_bytes(leaving, executors, caplog):
    """With Adam, whose state was on the executor that has left."""
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 6)).astype("float32")
    y = (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")
    fits = []
    for callbacks in ([], [Decommission(executors)]):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
        model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
        spark_model = SparkModel(model, num_workers=2, seed=1, road="rounds")
        with caplog.at_level(logging.INFO, "kspark"):
            spark_model.fit(x, y, epochs=4, verbose=0, callbacks=callbacks)
        assert all(w["state_kept"] for epoch in spark_model.last_fit.workers for w in epoch)
        fits.append([weights.tobytes() for weights in model.get_weights()])
    assert fits[0] == fits[1]
    assert "Shards have moved: " in caplog.text
