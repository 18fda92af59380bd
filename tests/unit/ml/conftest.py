"""Small compiled models; stages need no Spark until they fit."""

import keras
import pytest


def network(units=3, activation="softmax", loss="sparse_categorical_crossentropy", **compiled):
    layers = [
        keras.Input((4,), name="in"),
        keras.layers.Dense(5, "relu", name="hidden"),
        keras.layers.Dense(units, activation, name="out"),
    ]
    model = keras.Sequential(layers)
    model.compile(compiled.pop("optimizer", "adam"), loss, **compiled)
    return model


@pytest.fixture(scope="session")
def make():
    return network
