"""The model that `training` and `inference` measure. This module needs no kspark."""

from __future__ import annotations

import keras

from benchmarks.common import mnist

NUM_WORKERS = 2


def build_model(seed: int, steps_per_execution: int = 1) -> keras.Model:
    """A compiled 784-128-128-10 perceptron with initial weights drawn from `seed`."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((mnist.SIDE**2,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model
