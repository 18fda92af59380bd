"""Functions of `(worker, num_workers)` on `local[2]`: as the arrays of their rows, and streamed."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kspark import SparkModel
from kspark.errors import WorkerError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(100, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")


def classifier(built=True):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(([keras.Input((4,))] if built else []) + layers)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def fitted(*data, built=True, num_workers=2, mode="synchronous", frequency="epoch", **arguments):
    spark_model = SparkModel(classifier(built), mode, frequency, num_workers=num_workers, seed=3)
    history = spark_model.fit(*data, verbose=0, **{"epochs": 2, **arguments})
    return spark_model, history.history


def dataset(worker, num_workers):
    """Batches of ten: half of the rows each, or all."""
    size = len(X) // num_workers
    rows = slice(worker * size, (worker + 1) * size)
    return tf.data.Dataset.from_tensor_slices((X[rows], Y[rows])).batch(10)


def uneven(worker, num_workers):
    """Three batches for worker 0 and seven for worker 1; the last one has six rows."""
    rows = slice(0, 30) if worker == 0 else slice(30, 96)
    for start in range(*rows.indices(100)[:2], 10):
        stop = min(start + 10, rows.stop)
        yield X[start:stop], Y[start:stop]


class Batches(keras.utils.PyDataset):
    def __init__(self, worker, num_workers):
        super().__init__()
        self.rows = np.array_split(np.arange(100), num_workers)[worker]

    def __len__(self):
        return len(self.rows) // 10

    def __getitem__(self, number):
        rows = self.rows[10 * number : 10 * number + 10]
        return X[rows], Y[rows]


def test_one_worker_is_plain_keras(spark):
    spark_model, found = fitted(dataset, num_workers=1)
    plain = classifier()
    expected = plain.fit(dataset(0, 1), epochs=2, verbose=0).history
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    for a, b in zip(spark_model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "frequency", ["epoch", pytest.param(2, marks=pytest.mark.thorough), "batch"]
)
def test_two_workers_train_as_with_their_rows_as_arrays(spark, frequency):
    _, expected = fitted(X, Y, frequency=frequency, shuffle=False, batch_size=10)
    spark_model, found = fitted(dataset, frequency=frequency)
    assert found == expected
    counts = [[w["num_examples"] for w in e] for e in spark_model.last_fit.workers]
    assert counts == [[50, 50], [50, 50]]
    work = spark_model.last_fit.workload
    assert (work.num_examples, work.num_workers, work.batch_size) == (100, 2, 10)


@pytest.mark.parametrize(
    ("mode", "frequency", "merges"),
    [
        ("synchronous", 3, 3),
        ("asynchronous", 2, 6),
        ("hogwild", "batch", 10),
        *(
            pytest.param(*case, marks=pytest.mark.thorough)
            for case in (
                ("synchronous", "epoch", 1),
                ("synchronous", "batch", 7),
                ("asynchronous", "epoch", 2),
            )
        ),
    ],
)
def test_workers_may_have_other_numbers_of_rows(spark, mode, frequency, merges):
    """Nobody knows the numbers before. Validation ends the job of a live fit in each epoch."""
    spark_model, history = fitted(
        uneven, mode=mode, frequency=frequency, validation_data=uneven, class_weight={0: 1.0}
    )
    for facts in spark_model.last_fit.epochs:
        assert [(w["num_examples"], w["batches"]) for w in facts.workers] == [(30, 3), (66, 7)]
        assert facts.merges == merges
    assert "96 examples (30 + 66) with 2 workers" in str(spark_model.last_fit).replace("\n", " ")
    assert len(history["val_loss"]) == 2
    loss, accuracy = spark_model.evaluate(X[:96], Y[:96], verbose=0)
    np.testing.assert_allclose(history["val_loss"][-1], loss, rtol=1e-5)


def test_evaluation_and_prediction(spark):
    """Also of a model without an input shape. The rows of worker 0 come first."""
    spark_model, _ = fitted(Batches, built=False, epochs=1)
    expected = spark_model.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(spark_model.evaluate(dataset, verbose=0), expected, rtol=1e-6)
    first = np.concatenate([X[:20], X[50:60]]), np.concatenate([Y[:20], Y[50:60]])
    np.testing.assert_allclose(
        spark_model.evaluate(dataset, steps=3, verbose=0),
        spark_model.evaluate(*first, verbose=0),
        rtol=1e-6,
    )
    predicted = spark_model.predict(dataset, verbose=0)
    np.testing.assert_allclose(predicted, spark_model.predict(X, verbose=0), rtol=1e-6)


def noisy(worker, num_workers):
    """Draws from the generators that are seeded for each worker and epoch, without an end."""
    while True:
        x = np.random.normal(size=(10, 4)).astype("float32")
        yield x, (x.sum(axis=1) > worker).astype("int32")


def test_a_seed_gives_the_same_data_which_differs_from_epoch_to_epoch(spark):
    _, first = fitted(noisy, steps_per_epoch=8)
    spark_model, second = fitted(noisy, steps_per_epoch=8)
    assert first == second
    trained = [[w["batches"] for w in e] for e in spark_model.last_fit.workers]
    assert trained == [[4, 4], [4, 4]]


def fails_later(worker, num_workers):
    yield X[:10], Y[:10]
    raise OSError(f"the disk of worker {worker} is gone")


@pytest.mark.parametrize(
    ("make", "arguments", "error", "text"),
    [
        (lambda: None, {}, TypeError, r"function of \(worker, num_workers\)"),
        (lambda w, n: (X, Y), {}, TypeError, "returned <tuple object>. For a single batch"),
        (lambda w, n: [(X[:, :3], Y)], {}, ValueError, "In batch 1 of worker 0.*shape"),
        (lambda w, n: [(X, Y)] * (1 - w), {}, ValueError, "no rows for worker 1 of 2"),
        (lambda w, n: [(X, 5 * Y)], {}, ValueError, "label"),
        (lambda w, n: dataset(w, n).repeat(), {}, ValueError, "used with `steps_per_epoch`"),
        (dataset, {"validation_split": 0.1}, ValueError, "`validation_split` must be 0 with a f"),
        (dataset, {"reshuffle": "epoch"}, ValueError, "`reshuffle` must be None with a function"),
        (dataset, {"callbacks_every": 5}, ValueError, "`callbacks_every` must be None with a f"),
        (dataset, {"y": Y}, ValueError, "`y` must be `None` for a function"),
        (dataset, {"steps_per_epoch": 1}, ValueError, "`steps_per_epoch` must be >= 2"),
        (lambda w, n: [(X, Y)][n], {}, WorkerError, "of worker .*IndexError.*Traceback of"),
        (lambda w, n: sys.exit(3), {}, WorkerError, "SystemExit: 3"),
        (fails_later, {}, WorkerError, r"the disk of worker \d is gone.*test_factories.py"),
        (fails_later, {"frequency": "batch"}, WorkerError, r"the disk of worker \d is gone"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(spark, make, arguments, error, text):
    with pytest.raises(error, match=f"(?s){text}"):
        fitted(make, **arguments)
    if not arguments and error is WorkerError:
        with pytest.raises(error, match=f"(?s){text}"):
            SparkModel(classifier(), num_workers=2).evaluate(make, verbose=0)
