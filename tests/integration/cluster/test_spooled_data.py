"""Rows that are spooled to executors that are processes of their own, one of which is killed."""

import os
import signal

import keras
import numpy as np

from kspark import SparkModel
from kspark.data import spool


def model():
    keras.utils.set_random_seed(1)
    made = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    made.compile("sgd", "mse")
    return made


def weights_after(rows, *labels, road):
    spark_model = SparkModel(model(), seed=2, road=road)
    spark_model.fit(rows, *labels, epochs=2, verbose=0)
    return [w.tobytes() for w in spark_model.master_network.get_weights()]


def test_rows_outlive_an_executor(cluster, executors):
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    y = x[:, :3].copy()
    expected = weights_after(x, y, road="rounds")
    with spool(x, y) as rows:
        assert rows.num_shards == 2
        assert weights_after(rows, road="auto") == expected
        before = rows.places
        os.kill(executors()[0], signal.SIGKILL)
        assert weights_after(rows, road="rounds") == expected
        assert rows.places != before
        assert all(os.path.isdir(folder) for _, folder in rows.places)
        predicted = SparkModel(model()).predict(rows, verbose=0)
    np.testing.assert_array_equal(predicted, SparkModel(model()).predict(x, verbose=0))
