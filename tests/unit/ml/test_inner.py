"""Activations of layers and of nested models, and the layers that are refused."""

import keras
import numpy as np
import pytest

from kspark.ml.carried import CarriedModel
from kspark.replica import ReplicaSpec
from kspark.replica.building import build

layers = keras.layers

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


def value(tensor):
    return keras.ops.convert_to_numpy(tensor)


def functional_base(name="base"):
    entry = keras.Input((4,), name="pixels")
    return keras.Model(entry, layers.Dense(3, "tanh", name="deep")(entry), name=name)


def sequential_base():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh", name="deep")], name="base")


def sequence_of(base):
    return keras.Sequential([keras.Input((4,)), layers.Rescaling(2.0), base, layers.Dense(2)])


def sequence_with_the_base_first(base):
    return keras.Sequential([layers.Rescaling(2.0), base, layers.Dense(2)])


def graph_of(base):
    entry = keras.Input((4,))
    inner = base(layers.Rescaling(2.0)(entry), training=False)
    return keras.Model(entry, layers.Dense(2)(keras.ops.tanh(inner) + inner))


def inputs_by_name(base):
    inputs = {name: keras.Input((4,), name=name) for name in "ab"}
    return keras.Model(inputs, layers.Dense(2)(base(2 * inputs["b"] + 0 * inputs["a"])))


@pytest.mark.parametrize("outer", [sequence_of, sequence_with_the_base_first, graph_of])
@pytest.mark.parametrize("base", [functional_base, sequential_base])
def test_a_nested_model_gives_its_activations(outer, base):
    inside = base()
    model = outer(inside)
    model.build((None, 4))
    expected = value(inside(2 * X))
    before = model.get_config()
    lean = CarriedModel(model).predicting("base")
    for one in (lean, build(ReplicaSpec.of(lean)).model):
        np.testing.assert_allclose(one.predict(X, verbose=0), expected, rtol=1e-5)
    assert lean.count_params() == inside.count_params()
    assert model.get_config() == before


def test_a_nested_model_may_be_part_of_a_model_with_named_inputs():
    inside = functional_base()
    lean = CarriedModel(inputs_by_name(inside)).predicting("base")
    found = lean.predict({"a": X + 1, "b": X}, verbose=0)
    np.testing.assert_allclose(found, value(inside(2 * X)), rtol=1e-5)


def test_the_compile_arguments_do_not_matter():
    def unregistered(y, p):
        return keras.ops.mean(y - p, -1)

    model = graph_of(functional_base())
    model.compile(keras.optimizers.Adam(0.5), unregistered)
    lean = CarriedModel(model).predicting("base")
    assert lean.compiled
    assert model.loss is unregistered


def test_a_layer_shared_with_another_model_gives_the_activations_of_this_model():
    first = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="deep")])
    model = keras.Sequential([keras.Input((4,)), layers.Rescaling(2.0), *first.layers])
    lean = CarriedModel(model).predicting("deep")
    np.testing.assert_allclose(lean.predict(X, verbose=0), value(first(2 * X)), rtol=1e-5)


def test_a_layer_shared_on_the_same_input_gives_the_activations_of_this_model():
    entry, deep = keras.Input((4,)), layers.Dense(3, name="deep")
    keras.Model(entry, deep(entry))
    model = keras.Model(entry, layers.Dense(1)(deep(layers.Rescaling(2.0)(entry))))
    lean = CarriedModel(model).predicting("deep")
    np.testing.assert_allclose(lean.predict(X, verbose=0), value(deep(2 * X)), rtol=1e-5)


def test_an_input_layer_gives_the_input():
    entry = keras.Input((4,), name="pixels")
    model = keras.Model(entry, layers.Dense(1)(layers.Rescaling(2.0)(entry)))
    lean = CarriedModel(model).predicting("pixels")
    np.testing.assert_array_equal(lean.predict(X, verbose=0), X)


@pytest.mark.parametrize("base", [functional_base, lambda: layers.Dense(3, name="base")])
def test_a_layer_that_is_called_several_times_is_refused(base):
    inside = base()
    pair = [keras.Input((4,)) for _ in "ab"]
    model = keras.Model(pair, layers.Concatenate(name="both")([inside(x) for x in pair]))
    rule = "`featureLayer` must be a layer that the model calls once, .* 2 times. .*'base'"
    with pytest.raises(ValueError, match=rule):
        CarriedModel(model).predicting("base")
    assert CarriedModel(model).predicting("both").output_shape == (None, 6)


@pytest.mark.parametrize("outer", [sequence_of, graph_of])
def test_a_layer_of_a_nested_model_is_refused_with_the_available_layers(outer):
    model = outer(functional_base())
    rule = r"`featureLayer` must be .*layers \[.*'base'.*\] \(this one is inside 'base'; only"
    with pytest.raises(ValueError, match=rule):
        CarriedModel(model).predicting("deep")


def test_a_nested_model_of_several_outputs_is_refused():
    entry = keras.Input((4,))
    inside = keras.Model(entry, [layers.Dense(1)(entry), layers.Dense(1)(entry)], name="base")
    outer = keras.Input((4,))
    model = keras.Model(outer, layers.Concatenate()(inside(outer)))
    with pytest.raises(ValueError, match="`featureLayer` must be a layer of one output"):
        CarriedModel(model).predicting("base")


def test_a_layer_gives_its_activations(make):
    model = make()
    inner = CarriedModel(model).predicting("hidden")
    expected = keras.ops.convert_to_numpy(model.layers[0](X))
    np.testing.assert_allclose(inner.predict(X, verbose=0), expected, rtol=1e-6)


def test_an_unknown_layer_is_refused_with_the_nearest_name(make):
    with pytest.raises(ValueError, match=r"\['hidden', 'out'\] \(perhaps 'hidden'\)"):
        CarriedModel(make()).predicting("hiden")


def test_a_layer_of_several_outputs_is_refused():
    entry = keras.Input((3, 2))
    out, *states = keras.layers.LSTM(4, return_state=True, name="memory")(entry)
    model = keras.Model(entry, keras.layers.Dense(1, name="one")(out))
    with pytest.raises(ValueError, match="`featureLayer` must be a layer of one output.*'memory'"):
        CarriedModel(model).predicting("memory")
    assert CarriedModel(model).predicting("one").output_shape == (None, 1)
