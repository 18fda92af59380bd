"""Methods that are replaced on an object would be lost in a copy: they are refused."""

from __future__ import annotations

from functools import partial
from types import MethodType

import keras
import numpy as np
import pytest

from kspark.replica import ReplicaSpec

layers, ops = keras.layers, keras.ops


def sequential(*inner, shape=(4,)):
    model = keras.Sequential([keras.Input(shape), *inner, layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def functional():
    start = keras.Input((4,))
    model = keras.Model(start, layers.Dense(1, name="last")(layers.Dense(3, name="first")(start)))
    model.compile("sgd", "mse")
    return model


@keras.saving.register_keras_serializable("own_methods")
class Own(keras.Model):
    """Replaces methods in its class, and itself in each object."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.last = layers.Dense(1)
        self.compute_output_shape = MethodType(shape_of, self)

    def build(self, shape):
        self.last.build(shape)
        self.built = True

    def call(self, x):
        return self.last(x)

    def train_step(self, data):
        return super().train_step(data)


def shape_of(self, shape):
    return (shape[0], 1)


def own():
    model = Own()
    model.build((None, 4))
    model.compile("sgd", "mse")
    return model


def step(self, data):
    return {"loss": ops.zeros(())}


def test_a_step_that_is_set_on_a_model_is_refused():
    model = functional()
    model.train_step = MethodType(step, model)
    with pytest.raises(ValueError, match=r"the Functional '.*' with a `train_step` of its own.*su"):
        ReplicaSpec.of(model)


@pytest.mark.parametrize("make", [MethodType, lambda call, layer: partial(call, layer)])
def test_a_call_that_is_set_on_a_layer_is_refused(make):
    model = functional()
    first = model.get_layer("first")
    first.call = make(lambda self, x: layers.Dense.call(self, 2 * x), first)
    text = r"`model` must be .* the Dense 'first' with a `call` of its own.*subclass of `Dense`"
    with pytest.raises(ValueError, match=text):
        ReplicaSpec.of(model)


def test_a_method_that_is_set_on_a_users_own_model_is_refused():
    model = own()
    model.compute_output_shape = MethodType(lambda self, shape: shape, model)
    with pytest.raises(ValueError, match="`compute_output_shape` of its own"):
        ReplicaSpec.of(model)


def test_a_function_in_place_of_a_method_is_carried_over():
    model = functional()
    model.get_layer("first").call = lambda x: 0.0 * x[:, :3]
    copy = ReplicaSpec.of(model).model.make()
    np.testing.assert_array_equal(copy(np.ones((2, 4), "float32")), np.zeros((2, 1)))


def quantized():
    model = sequential(layers.Dense(8))
    model.quantize("int8")
    return model


def rematerialized():
    with keras.RematScope(mode="full"):
        return sequential(layers.Dense(3), layers.Dense(3))


def used(model):
    x, y = np.ones((8, *model.input_shape[1:]), "float32"), np.ones((8, 1), "float32")
    model.fit(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    return model


def several_steps():
    model = functional()
    model.compile("adam", "mse", steps_per_execution=2, metrics=["mae"])
    return used(model)


@pytest.mark.parametrize(
    "make",
    [
        functional,
        own,
        quantized,
        rematerialized,
        several_steps,
        lambda: used(functional()),
        lambda: used(sequential(layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.1))),
        lambda: sequential(sequential(layers.Dense(3)), layers.Lambda(lambda x: 2 * x)),
        lambda: used(sequential(layers.Conv1D(2, 2), layers.LSTM(2), shape=(4, 2))),
        lambda: sequential(layers.Bidirectional(layers.GRU(2)), shape=(4, 2)),
        lambda: sequential(layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)]), shape=(4, 2)),
        lambda: sequential(layers.TimeDistributed(layers.Dense(2)), shape=(4, 2)),
        lambda: sequential(layers.SpectralNormalization(layers.Dense(2))),
        lambda: sequential(layers.Normalization(mean=0.0, variance=1.0), layers.Rescaling(2.0)),
        lambda: sequential(layers.Activation("relu"), layers.Softmax(), layers.LeakyReLU()),
    ],
)
def test_models_with_the_methods_of_their_classes_are_copied(make):
    ReplicaSpec.of(make())


def test_attention_is_copied():
    start = keras.Input((4, 2))
    end = layers.MultiHeadAttention(1, 2)(start, start)
    model = keras.Model(start, layers.GlobalAveragePooling1D()(end))
    model.compile("sgd", "mse")
    ReplicaSpec.of(model)
