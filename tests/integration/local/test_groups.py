"""Rounds of many shards on `local[2]`: executors sum groups of them."""

import os
import pickle
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from pyspark import TaskContext

from kspark import SparkModel
from kspark.aggregator import Aggregator
from kspark.cluster.spark_job import SparkJob
from kspark.errors import WorkerError
from kspark.job import groups

NEVER = 10**9


@keras.saving.register_keras_serializable("tests")
class Rows(keras.metrics.Metric):
    """Counts rows, and sums their ids, which are the labels."""

    def __init__(self, name="ids", **kwargs):
        super().__init__(name=name, **kwargs)
        self.sums = self.add_variable((2,), "zeros", name="sums")

    def update_state(self, y_true, y_pred, sample_weight=None):
        ids = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), self.dtype)
        self.sums.assign_add(keras.ops.stack([keras.ops.sum(ids * 0 + 1), keras.ops.sum(ids)]))

    def result(self):
        return {"rows": self.sums[0], "ids": self.sums[1]}


def made(*layers):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            *layers,
            keras.layers.Dense(400, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=[Rows()])
    return model


@pytest.fixture(scope="module")
def data():
    rows = 158
    x = np.random.default_rng(0).normal(size=(rows, 5)).astype("float32")
    return x, np.arange(rows, dtype="float32")


class Seen:
    """Counts the vectors in the results of Spark jobs, and the deltas that the driver merges."""

    def __init__(self, monkeypatch, size):
        self.vectors, self.merged = [], []
        result, merge = SparkJob.result, Aggregator.merge

        def counted_result(job, *given, **named):
            found = result(job, *given, **named)
            self.vectors.append(len(pickle.dumps(found)) // (4 * size))
            return found

        def counted_merge(aggregator, deltas, **more):
            self.merged.append(len(deltas))
            return merge(aggregator, deltas, **more)

        monkeypatch.setattr(SparkJob, "result", counted_result)
        monkeypatch.setattr(Aggregator, "merge", counted_merge)


def fit(data, model=None, shards=16, epochs=2, **more):
    spark_model = SparkModel(model or made(), num_workers=shards, seed=1, **more)
    history = spark_model.fit(*data, epochs=epochs, verbose=0).history
    return spark_model.master_network, history


def arrays(model):
    return [np.asarray(v) for v in (*model.weights, *model.optimizer.variables)]


def same_bytes(left, right):
    for a, b in zip(arrays(left), arrays(right), strict=True):
        assert a.tobytes() == b.tobytes()


def shuffled_files(_):
    folders = os.environ["SPARK_LOCAL_DIRS"].split(",")
    yield [str(p) for folder in folders for p in Path(folder).rglob("shuffle_*")]


def test_sixty_four_shards_reach_the_driver_as_eight_sums(spark, data, monkeypatch):
    model = made()
    probe = spark.sparkContext.parallelize([0], 1).mapPartitions(shuffled_files)
    others = set(probe.first())  # of other tests in the same session
    with monkeypatch.context() as patched:
        seen = Seen(patched, model.count_params())
        _, history = fit(data, model, shards=64, epochs=1)
    assert history["rows"] == [len(data[0])]
    assert history["ids"] == [data[1].sum()]
    assert seen.merged == [8]
    # 8 deltas, 8 states that are larger by a third, the figures of 64 shards.
    assert 8 <= max(seen.vectors) <= 8 + 11 + 3
    # No file of a shuffle outlives the fit.
    deadline = time.monotonic() + 60
    while (left := set(probe.first()) - others) and time.monotonic() < deadline:
        time.sleep(0.1)  # Spark removes them in the background
    assert not left


@pytest.mark.thorough
@pytest.mark.parametrize(
    "more", [{}, {"compression": "int8"}, {"server_optimizer": "elastic_average"}]
)
def test_group_sums_give_the_same_model_as_single_deltas(spark, data, monkeypatch, more):
    grouped, history = fit(data, **more)
    monkeypatch.setattr(groups, "MIN_GROUPED_SHARDS", NEVER)
    single, history_of_single = fit(data, **more)
    for a, b in zip(arrays(grouped), arrays(single), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for name, values in history_of_single.items():
        assert history[name] == pytest.approx(values, rel=1e-4), name


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_bytes(spark, data):
    same_bytes(*(fit(data)[0] for _ in range(2)))


@keras.saving.register_keras_serializable("tests")
class FailsOnWorkers(keras.layers.Layer):
    def call(self, inputs):
        if TaskContext.get() is not None:
            raise ZeroDivisionError("in a layer")
        return inputs


def test_an_exception_in_the_model_names_its_shard(spark, data):
    with pytest.raises(WorkerError, match=r"Shard 0 failed on host .*ZeroDivisionError") as caught:
        fit(data, made(FailsOnWorkers()))
    assert "in a layer" in caught.value.failure.traceback


@keras.saving.register_keras_serializable("tests.groups")
class DiesOnce(keras.layers.Layer):
    """Ends the first process that builds it."""

    def __init__(self, mark, **kwargs):
        super().__init__(**kwargs)
        self.mark = mark

    def call(self, inputs):
        if TaskContext.get() is not None and not os.path.exists(self.mark):
            Path(self.mark).touch()
            os._exit(1)
        return inputs

    def get_config(self):
        return {**super().get_config(), "mark": self.mark}


@pytest.mark.thorough
def test_a_process_that_dies_does_not_change_the_weights(spark, data, tmp_path):
    mark = tmp_path / "died"
    disturbed, _ = fit(data, made(DiesOnce(str(mark))))
    assert mark.exists()
    undisturbed, _ = fit(data, made(DiesOnce(str(mark))))
    same_bytes(disturbed, undisturbed)
