"""A `SparkModel` has the attributes of its Keras model, and its own."""

import copy

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.mllib import SparkMLlibModel


class Tempered(keras.Model):
    """A model with attributes of its own, one of which has the name of a setting."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.temperature = 1.0
        self.seed = 7
        self.layer = keras.layers.Dense(1)

    def call(self, x):
        return self.layer(x) / self.temperature


def small(kind=SparkModel):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model, kind(model)


@pytest.mark.parametrize("kind", [SparkModel, SparkMLlibModel])
def test_what_keras_users_read_is_that_of_the_model(kind, capsys):
    model, spark_model = small(kind)
    for name in ("layers", "optimizer", "name", "input_shape", "trainable_variables", "metrics"):
        expected, found = getattr(model, name), getattr(spark_model, name)
        assert found == expected or all(a is b for a, b in zip(found, expected, strict=True)), name
    assert spark_model.count_params() == 13
    assert spark_model.get_layer(index=1) is model.layers[1]
    x = np.ones((4, 2), "float32")
    np.testing.assert_array_equal(spark_model(x), model(x))
    np.testing.assert_array_equal(spark_model.predict_on_batch(x), model.predict_on_batch(x))
    spark_model.summary()
    assert "Total params: 13" in capsys.readouterr().out


def test_weights_that_are_set_are_those_of_the_model():
    model, spark_model = small()
    zeros = [np.zeros_like(w) for w in model.get_weights()]
    spark_model.set_weights(zeros)
    assert not any(np.any(w) for w in model.get_weights())


def test_compile_and_trainable_reach_the_model():
    model, spark_model = small()
    spark_model.trainable = False
    assert not model.trainable
    assert spark_model.trainable_variables == []
    spark_model.trainable = True
    spark_model.compile(keras.optimizers.Adam(1e-4), "mae")
    assert type(model.optimizer) is keras.optimizers.Adam
    assert "trainable" not in vars(spark_model)


def test_settings_stay_those_of_the_spark_model():
    model = Tempered()
    model.compile("sgd", "mse")
    spark_model = SparkModel(model, seed=1)
    spark_model.seed, spark_model.temperature = 2, 0.5
    assert (spark_model.seed, model.seed) == (2, 7)
    assert (spark_model.temperature, model.temperature) == (0.5, 0.5)
    assert spark_model.get_config()["seed"] == 2


def test_attributes_that_neither_has_are_errors_and_private_ones_are_not_looked_up():
    _, spark_model = small()
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        spark_model.no_such_thing()
    with pytest.raises(AttributeError, match="'SparkModel' object has no attribute '_tracker'"):
        _ = spark_model._tracker
    spark_model.note = "mine"
    assert not hasattr(spark_model.master_network, "note")


def test_a_copy_has_the_same_model():
    model, spark_model = small()
    assert copy.copy(spark_model).master_network is model


def test_a_spark_model_of_a_spark_model_has_its_model():
    """A cell of a notebook with `model = SparkModel(model)` may run twice."""
    model, spark_model = small()
    assert SparkModel(spark_model, num_workers=3).master_network is model
