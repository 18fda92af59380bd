"""Fits on executors that are processes of their own, some of which are killed."""

import os
import signal
import threading

import keras
import numpy as np
import pytest
from pyspark import TaskContext

from kspark import SparkModel
from kspark.errors import WorkerError

MODES = [
    ("synchronous", "epoch", {}),
    ("synchronous", "batch", {}),
    ("asynchronous", 4, {"max_staleness": 3}),
    pytest.param("synchronous", "epoch", {"straggler_timeout": 1.0}, marks=pytest.mark.thorough),
    pytest.param("asynchronous", "epoch", {}, marks=pytest.mark.thorough),
    pytest.param(
        "asynchronous", 4, {"server_optimizer": "elastic_average"}, marks=pytest.mark.thorough
    ),
    ("hogwild", 4, {}),
]


def labelled(rows, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 6)).astype("float32")
    return x, (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")


def classifier(*layers, optimizer=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            *layers,
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    optimizer = optimizer or keras.optimizers.Adam(0.02)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class KillOnce(keras.callbacks.Callback):
    """Kills an executor at the end of the first epoch, while others may be in the next."""

    def __init__(self, executors):
        super().__init__()
        self.executors, self.process = executors, executors()[0]
        self.killed = threading.Event()

    def on_epoch_end(self, epoch, logs=None):
        if not self.killed.is_set():
            os.kill(self.process, signal.SIGKILL)
            self.killed.set()

    def on_train_end(self, logs=None):
        assert self.process not in self.executors()


@pytest.mark.parametrize(("mode", "frequency", "more"), MODES)
def test_training_completes_when_an_executor_is_killed(cluster, executors, mode, frequency, more):
    x, y = labelled(1200)
    killer = KillOnce(executors)
    model = classifier()
    history = SparkModel(model, mode, frequency, num_workers=2, **more).fit(
        x, y, epochs=6, verbose=0, callbacks=[killer]
    )
    assert killer.killed.is_set()
    assert len(history.history["loss"]) == 6
    _, accuracy = model.evaluate(x, y, verbose=0)
    assert accuracy > 0.9


@pytest.mark.thorough
def test_group_sums_are_identical_when_an_executor_is_killed(cluster, executors):
    """With plain SGD, because a lost executor loses the optimizer state of its shards."""
    x, y = labelled(1200)
    models = []
    for killer in (None, KillOnce(executors)):
        model = classifier(optimizer=keras.optimizers.SGD(0.1))
        spark_model = SparkModel(model, num_workers=16, seed=1)
        callbacks = [] if killer is None else [killer]
        spark_model.fit(x, y, epochs=4, verbose=0, callbacks=callbacks)
        models.append(model)
    assert killer.killed.is_set()
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        assert a.tobytes() == b.tobytes()


@keras.saving.register_keras_serializable("tests.failures")
class EndsTheProcess(keras.layers.Layer):
    def call(self, inputs):
        if TaskContext.get() is not None:
            os._exit(1)
        return inputs


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_worker_that_dies_repeatedly_raises_a_worker_error(cluster, mode):
    x, y = labelled(64)
    with pytest.raises(WorkerError, match="process ended"):
        SparkModel(classifier(EndsTheProcess()), mode, max_failures=1).fit(x, y, verbose=0)


def test_both_executors_train(cluster):
    # An earlier test has killed one. A barrier job waits for the one that takes its place.
    cluster.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(iter).collect()
    x, y = labelled(400)
    spark_model = SparkModel(classifier(), num_workers=2)
    spark_model.fit(x, y, epochs=2, verbose=0)
    assert len({worker["pid"] for worker in spark_model.last_fit.workers[-1]}) == 2


class FailsFirst:
    """Fails a partition's first attempt, after half of its rows."""

    def __call__(self, index, rows):
        rows = list(rows)
        for number, row in enumerate(rows):
            if index == 1 and number > len(rows) // 2 and TaskContext.get().attemptNumber() == 0:
                raise RuntimeError("the first attempt fails")
            yield row


def test_a_retried_task_does_not_change_the_weights(cluster):
    x, y = labelled(200)
    rows = cluster.sparkContext.parallelize(list(zip(x, y, strict=True)), 2)
    models = [classifier(), classifier()]
    for model, data in zip(models, [rows, rows.mapPartitionsWithIndex(FailsFirst())], strict=True):
        SparkModel(model, seed=1).fit(data, epochs=2, verbose=0)
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        assert a.tobytes() == b.tobytes()


def mixed_fit(optimizer, road, callbacks=()):
    """Sorted rows, which are mixed after every epoch. Shards move from executor to executor."""
    x, y = labelled(300)
    order = np.argsort(y, kind="stable")
    model = classifier(optimizer=optimizer)
    spark_model = SparkModel(model, num_workers=4 if road == "rounds" else 2, road=road, seed=1)
    spark_model.fit(
        x[order], y[order], epochs=4, verbose=0, callbacks=list(callbacks), reshuffle="epoch"
    )
    return spark_model


def test_mixed_rows_are_the_same_when_an_executor_is_killed(cluster, executors):
    """With plain SGD, because a lost executor loses the optimizer state of its shards."""
    cluster.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(iter).collect()
    killer = KillOnce(executors)
    models = [
        mixed_fit(keras.optimizers.SGD(0.1), "auto", callbacks) for callbacks in ((), [killer])
    ]
    assert killer.killed.is_set()
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        assert a.tobytes() == b.tobytes()


def test_the_state_of_a_shard_moves_with_its_rows(cluster):
    cluster.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(iter).collect()
    models = [mixed_fit(keras.optimizers.Adam(0.02), "rounds") for _ in range(2)]
    for model in models:
        for workers in model.last_fit.workers:
            assert all(worker["state_kept"] for worker in workers)
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        assert a.tobytes() == b.tobytes()
