"""Rounds that continue without a slow shard, on `local[3]`."""

import os
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from pyspark import TaskContext

from kspark import SparkModel

RATE = 0.01
SIZES = (5, 5, 4)  # of 14 rows
BATCHES = (3, 3, 2)  # of two rows
SLOW = 2


@keras.saving.register_keras_serializable("tests")
class RowCount(keras.metrics.Metric):
    """Counts rows."""

    def __init__(self, name="rows", **kwargs):
        super().__init__(name=name, **kwargs)
        self.rows = self.add_variable((), "zeros", name="rows")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.rows.assign_add(keras.ops.cast(keras.ops.shape(y_true)[0], self.dtype))

    def result(self):
        return self.rows


@keras.saving.register_keras_serializable("tests")
class SlowOnOneShard(keras.layers.Layer):
    """The first process that works on the slow shard waits for a file."""

    def __init__(self, mark, **kwargs):
        super().__init__(**kwargs)
        self.mark = mark

    def call(self, inputs):
        context = TaskContext.get()
        while context is not None and context.partitionId() == SLOW:
            if os.path.exists(self.mark):
                break
            time.sleep(0.01)
        return inputs

    def get_config(self):
        return {**super().get_config(), "mark": self.mark}


class LetsGo(keras.callbacks.Callback):
    """Releases the slow shard, or stops the fit, at the end of an epoch."""

    def __init__(self, mark, *, stop):
        super().__init__()
        self.mark, self.stop = mark, stop

    def on_epoch_end(self, epoch, logs=None):
        self.mark.touch()
        self.model.stop_training = self.stop


def constant_slopes(mark):
    """A model whose gradient is the mean of the rows, whatever its weights; and such rows."""
    model = keras.Sequential(
        [
            keras.Input((1,)),
            SlowOnOneShard(str(mark)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"),
        ]
    )
    model.compile(keras.optimizers.SGD(RATE), "mae", metrics=[RowCount()])
    x = np.repeat([1.0, 2.0, 4.0], SIZES).reshape(-1, 1).astype("float32")
    return model, x, np.full_like(x, -1000.0)


def expected_weight(report):
    """The weight after merging whom the report names, when it names them."""
    weight = 1.0
    merges = []
    for facts in report.epochs:
        shards = [worker["shard"] for worker in facts.workers]
        on_time = shards if facts.merges == 1 else shards[: len(shards) - len(facts.late)]
        merges += [on_time, shards[len(on_time) :]]
    for shards in filter(None, merges):
        deltas = [-RATE * BATCHES[shard] * (1.0, 2.0, 4.0)[shard] for shard in shards]
        weight += np.average(deltas, weights=[SIZES[shard] for shard in shards])
    return weight


@pytest.mark.parametrize("stop", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_late_shard_is_merged_once(three, tmp_path, stop):
    mark = Path(tmp_path / "go")
    model, x, y = constant_slopes(mark)
    spark_model = SparkModel(model, num_workers=3, batch_size=2, straggler_timeout=0.2)
    history = spark_model.fit(x, y, epochs=4, verbose=0, callbacks=[LetsGo(mark, stop=stop)])
    epochs = spark_model.last_fit.epochs
    assert len(epochs) == (1 if stop else 4)
    assert epochs[0].stragglers == (SLOW,)
    late = [(w["shard"], w["rounds_late"]) for f in epochs for w in f.workers if w["rounds_late"]]
    assert [shard for shard, _ in late].count(SLOW) == 1
    assert [shard for facts in epochs for shard in facts.late] == [shard for shard, _ in late]
    rows = [sum(w["num_examples"] for w in facts.workers) for facts in epochs]
    assert history.history["rows"] == ([10] if stop else rows)
    assert rows[-1] == 14 or not stop
    assert float(model.weights[0].numpy()[0, 0]) == pytest.approx(
        expected_weight(spark_model.last_fit)
    )
    assert list(three.sparkContext.statusTracker().getActiveJobsIds()) == []
    assert [t.name for t in threading.enumerate() if t.name.startswith("kspark-")] == []


def classifier():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.mark.thorough
@pytest.mark.parametrize("more", [{}, {"compression": "int8"}])
def test_a_timeout_that_no_shard_exceeds_changes_nothing(three, more):
    random = np.random.default_rng(0)
    x = random.normal(size=(70, 6)).astype("float32")
    y = random.integers(0, 3, 70)
    found = []
    for timeout in (None, 600.0):
        spark_model = SparkModel(
            classifier(), num_workers=3, seed=5, straggler_timeout=timeout, **more
        )
        history = spark_model.fit(x, y, epochs=2, verbose=0, validation_split=0.2).history
        model = spark_model.master_network
        found.append((history, [*model.get_weights(), *map(np.asarray, model.optimizer.variables)]))
    (without, left), (history, right) = found
    assert history.pop("stragglers") == [0, 0]
    assert history == without
    for a, b in zip(left, right, strict=True):
        assert a.tobytes() == b.tobytes()
