"""Rows that are spooled to executors that are processes of their own, one of which is killed."""

import contextlib
import os
import signal
from pathlib import Path

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


def executor():
    """The process of an executor."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"CoarseGrainedExecutorBackend" in (folder / "cmdline").read_bytes():
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if has_ancestor(int(parent), os.getpid()):
                    return int(folder.name)
    raise AssertionError("there is no executor")


def has_ancestor(process, wanted):
    while process > 1 and process != wanted:
        state = Path(f"/proc/{process}/stat").read_text()
        process = int(state.rpartition(")")[2].split()[1])
    return process == wanted


def test_rows_outlive_an_executor(cluster):
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    y = x[:, :3].copy()
    expected = weights_after(x, y, road="rounds")
    with spool(x, y) as rows:
        assert rows.num_shards == 2
        assert weights_after(rows, road="auto") == expected
        before = rows.places
        os.kill(executor(), signal.SIGKILL)
        assert weights_after(rows, road="rounds") == expected
        assert rows.places != before
        assert all(os.path.isdir(folder) for _, folder in rows.places)
        predicted = SparkModel(model()).predict(rows, verbose=0)
    np.testing.assert_array_equal(predicted, SparkModel(model()).predict(x, verbose=0))
