"""Asynchronous fits on `local[2]`: elastic averaging and bounded staleness."""

import time

import keras
import numpy as np
import tensorflow as tf
from pyspark import TaskContext

from kspark import SparkModel


def classifier(optimizer):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def labelled(rows):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 6)).astype("float32")
    return x, (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")


def test_elastic_averaging_trains_with_replicas_that_keep_their_own_weights(spark):
    x, y = labelled(400)
    model = classifier(keras.optimizers.Adam(0.02))
    rule = {"class_name": "elastic_average", "config": {"momentum": 0.5}}
    spark_model = SparkModel(model, "asynchronous", 4, num_workers=2, server_optimizer=rule)
    spark_model.fit(x, y, epochs=8, verbose=0, validation_split=0.1, validation_freq=4)
    assert model.evaluate(x, y, verbose=0)[1] > 0.8
    facts = spark_model.last_fit.epochs[-1]
    assert (len(spark_model.last_fit.epochs), len(facts.workers)) == (8, 2)
    assert facts.merges == len(facts.staleness) == 4  # 180 rows, 6 batches, 2 exchanges each


@keras.saving.register_keras_serializable("tests")
class Slow(keras.layers.Layer):
    """Sleeps 0.03 seconds in every batch of the first partition."""

    def call(self, inputs):
        context = TaskContext.get()
        if context is None or context.partitionId() > 0:
            return inputs

        def late(values):
            time.sleep(0.03)
            return values

        return tf.ensure_shape(tf.numpy_function(late, [inputs], inputs.dtype), inputs.shape)


def test_fast_workers_wait_for_a_slow_worker(spark):
    """The slow worker makes ten exchanges; without a bound the other one would finish before."""
    model = keras.Sequential([keras.Input((6,)), Slow(), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    x, y = labelled(160)
    spark_model = SparkModel(model, "asynchronous", 1, num_workers=2, batch_size=8, max_staleness=1)
    spark_model.fit(x, y, epochs=2, verbose=0)
    for facts in spark_model.last_fit.epochs:
        assert len(facts.staleness) == 20
        assert max(facts.staleness) <= 3  # (k - 1)(2s + 1)
    assert max(spark_model.last_fit.exchanges()["staleness_max"]) <= 3


def test_a_staleness_bound_of_zero_equals_a_synchronous_fit(spark):
    x, y = labelled(192)
    weights = []
    for mode, bound in (("synchronous", None), ("asynchronous", 0)):
        model = classifier(keras.optimizers.Adam(0.02))
        spark_model = SparkModel(model, mode, 2, num_workers=2, seed=5, max_staleness=bound)
        spark_model.fit(x, y, epochs=3, batch_size=8, verbose=0, validation_split=0.25)
        weights.append(model.get_weights())
    for synchronous, asynchronous in zip(*weights, strict=True):
        np.testing.assert_allclose(synchronous, asynchronous, rtol=0, atol=1e-5)
