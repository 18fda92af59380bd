"""Asynchronous fits on `local[2]`: replicas with weights of their own."""

import keras
import numpy as np
import pytest

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


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_replicas_with_weights_of_their_own_are_tied_to_what_fit_returns(spark, momentum):
    x, y = labelled(400)
    model = classifier(keras.optimizers.Adam(0.02))
    rule = {"class_name": "elastic_average", "config": {"momentum": momentum}}
    spark_model = SparkModel(model, "asynchronous", 4, num_workers=2, server_optimizer=rule)
    spark_model.fit(x, y, epochs=8, verbose=0, validation_split=0.1, validation_freq=4)
    assert model.evaluate(x, y, verbose=0)[1] > 0.8
    facts = spark_model.last_fit.epochs[-1]
    assert (len(spark_model.last_fit.epochs), len(facts.workers)) == (8, 2)
    assert facts.merges == len(facts.staleness) == 4  # 180 rows, 6 batches, 2 exchanges each
