"""Variables of the loss and the metrics are found in the same order in every copy."""

from __future__ import annotations

import pickle

import keras
import pytest
import tensorflow as tf

from kspark.replica import ReplicaSpec
from kspark.replica.building import build
from kspark.replica.compiled_variables import compiled_variables

ops = keras.ops

BETA = keras.Variable(0.5, trainable=False)
alpha = keras.Variable(7.0, trainable=False)
FOREIGN = tf.Variable(1.0)


class Settings:
    alpha = 2.0


SETTINGS = Settings()


class UsesGlobal(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return BETA * ops.mean(ops.abs(y_true - y_pred), axis=-1)


def with_attribute(y_true, y_pred):
    return SETTINGS.alpha * ops.mean(ops.abs(y_true - y_pred), axis=-1)


def with_tensorflow(y_true, y_pred):
    return FOREIGN * ops.mean(ops.abs(y_true - y_pred), axis=-1)


def shifted_by(offset):
    def metric(y_true, y_pred):
        return ops.mean(y_pred + offset, axis=-1)

    return metric


def values_in_a_copy(model):
    spec = pickle.loads(pickle.dumps(ReplicaSpec.of(model)))
    return [float(v) for v in compiled_variables(build(spec).model)]


def test_variables_that_the_methods_of_a_loss_use_are_found(mlp):
    model = mlp(loss=UsesGlobal())
    assert [v is BETA for v in compiled_variables(model)] == [True]
    assert values_in_a_copy(model) == [0.5]


@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
def test_variables_of_metrics_are_found_and_their_states_are_not(argument, mlp):
    offset = keras.Variable(3.0, trainable=False)
    metrics = [keras.metrics.MeanSquaredError(), shifted_by(offset)]
    model = mlp(loss="mse", **{argument: metrics})
    assert [v is offset for v in compiled_variables(model)] == [True]
    assert values_in_a_copy(model) == [3.0]


def test_a_global_of_the_name_of_an_attribute_is_not_counted(mlp):
    model = mlp(loss=with_attribute)
    assert compiled_variables(model) == []
    assert values_in_a_copy(model) == []


def test_a_variable_of_tensorflow_is_refused_with_what_to_use(mlp):
    with pytest.raises(ValueError, match=r"'with_tensorflow' cannot be sent.*`keras.Variable`"):
        ReplicaSpec.of(mlp(loss=with_tensorflow))
