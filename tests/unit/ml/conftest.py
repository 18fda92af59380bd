"""Small compiled models; stages need no Spark until they fit."""

from types import SimpleNamespace
from unittest.mock import Mock

import keras
import pytest
from pyspark.sql import DataFrame

from kspark.ml import ElephasEstimator


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


@pytest.fixture
def model(make):
    return make(3, "softmax", "categorical_crossentropy", metrics=["accuracy"])


@pytest.fixture
def estimator(model):
    return ElephasEstimator(
        keras_model_config=model.to_json(),
        optimizer_config=keras.optimizers.serialize(model.optimizer),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        epochs=3,
        outputCol="out",
    )


@pytest.fixture
def frame():
    """A DataFrame without rows of a session that runs."""
    context = SimpleNamespace(applicationId="application")
    session = SimpleNamespace(sparkContext=context, conf={"spark.master": "local[2]"})
    return Mock(DataFrame, sparkSession=session, columns=["features", "label"])
