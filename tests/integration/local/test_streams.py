"""`tf.data`, PyDatasets and generators on `local[2]`: as the arrays of their rows."""

import keras
import numpy as np
import tensorflow as tf

from kspark import SparkModel

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")


def classifier(built=True):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(([keras.Input((4,))] if built else []) + layers)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def fitted(*data, built=True, **arguments):
    spark_model = SparkModel(classifier(built), num_workers=2, seed=3, batch_size=99)
    history = spark_model.fit(*data, verbose=0, **{"epochs": 2, **arguments})
    return spark_model, history.history


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 9

    def __getitem__(self, number):
        rows = slice(10 * number, 10 * number + 10)
        return X[rows], Y[rows]


def batches():
    for start in range(0, 90, 10):
        yield X[start : start + 10], Y[start : start + 10]


def test_batches_train_as_their_rows_do(spark):
    """With the size of the batches; also an unbuilt model, and in several data sets."""
    by_rows, expected = fitted(X, Y, batch_size=10, validation_data=(X, Y))
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)
    by_batches, found = fitted(dataset, validation_data=Batches())
    assert found == expected
    _, found = fitted(batches(), built=False, validation_data=dataset)
    assert found.keys() == expected.keys()
    assert by_batches.evaluate(Batches(), verbose=0) == by_rows.evaluate(X, Y, verbose=0)
    predicted = by_batches.predict(dataset, verbose=0)
    np.testing.assert_array_equal(predicted, by_rows.predict(X, batch_size=10, verbose=0))


def test_batches_without_an_end_are_read_as_far_as_the_epochs_go(spark):
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(10).repeat()
    larger = tf.data.Dataset.from_tensor_slices((X, Y)).batch(15).repeat()
    steps = {"steps_per_epoch": 6, "epochs": 3, "shuffle": False}
    spark_model, found = fitted(endless, **steps, validation_data=larger, validation_steps=2)
    _, expected = fitted(
        np.concatenate([X, X]), np.concatenate([Y, Y]), batch_size=10, **steps,
        validation_data=(X[:30], Y[:30]), validation_batch_size=15,
    )  # fmt: skip
    assert found == expected
    trained = [sum(w["num_examples"] for w in e) for e in spark_model.last_fit.workers]
    assert trained == [60, 60, 60]
