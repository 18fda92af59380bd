"""The digest of a model changes with everything that its predictions depend on."""

from __future__ import annotations

import sys
from functools import partial

import keras
import numpy as np
import pytest

from kspark.replica.digest import lasting_digest, model_digest
from kspark.replica.steps import Step


class Scale(keras.layers.Layer):
    def __init__(self, by=2.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def call(self, x):
        return self.by * x

    def get_config(self):
        return {**super().get_config(), "by": self.by}


class Unfinished(keras.layers.Layer):
    """A layer whose configuration is not known."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def call(self, x):
        return x

    def get_config(self):
        raise NotImplementedError


def strings():
    return keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")


def integers():
    return keras.layers.IntegerLookup(vocabulary=[3, 5], output_mode="multi_hot")


def text():
    return keras.layers.TextVectorization(vocabulary=["a", "b"], output_mode="multi_hot")


def tf_idf():
    return keras.layers.StringLookup(
        vocabulary=["a", "b"], idf_weights=[1.0, 2.0], output_mode="tf_idf"
    )


def bins():
    layer = keras.layers.Discretization(num_bins=3)
    layer.adapt(np.arange(10.0))
    return layer


def normalization():
    layer = keras.layers.Normalization()
    layer.adapt(np.arange(10.0)[:, None])
    return layer


class Plain(keras.layers.Layer):
    """A layer whose attributes its configuration lacks."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.by = 2.0
        self.shape_of = lambda x: x

    def call(self, x):
        return self.by * x


CHANGES = {
    "strings": ("string", strings, lambda layer: layer.set_vocabulary(["c", "b"])),
    "order of strings": ("string", strings, lambda layer: layer.set_vocabulary(["b", "a"])),
    "integers": ("int64", integers, lambda layer: layer.set_vocabulary([7, 5])),
    "text": ("string", text, lambda layer: layer.set_vocabulary(["c", "b"])),
    "weights for TF-IDF": (
        *("string", tf_idf),
        lambda layer: layer.set_vocabulary(["a", "b"], idf_weights=[1.0, 3.0]),
    ),
    "bins": ("float32", bins, lambda layer: layer.adapt(np.arange(20.0))),
    "normalization": (
        "float32",
        normalization,
        lambda layer: layer.adapt(np.arange(20.0)[:, None]),
    ),
    "attribute that is in no configuration": (
        *("float32", Plain),
        lambda layer: setattr(layer, "by", 3.0),
    ),
    "function that is in no configuration": (
        *("float32", Plain),
        lambda layer: setattr(layer, "shape_of", lambda x: -x),
    ),
    "attribute in the configuration": (
        *("float32", Scale),
        lambda layer: setattr(layer, "by", 3.0),
    ),
}


def model_with(layer, dtype):
    """A model that has a layer inside an inner model, and another layer after it."""
    entry = keras.Input((1,), dtype=dtype)
    inner = keras.Model(entry, layer(entry))
    outer = keras.Input((1,), dtype=dtype)
    return keras.Model(outer, keras.layers.Flatten()(inner(outer)))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_layer_changes_the_digest(change):
    dtype, make, alter = CHANGES[change]
    layer = make()
    model = model_with(layer, dtype)
    before = model_digest(model)
    assert model_digest(model) == before
    alter(layer)
    after = model_digest(model)
    assert after != before
    assert model_digest(model) == after


def test_a_change_of_a_weight_changes_the_digest():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    before = model_digest(model)
    model.layers[0].bias.assign([0.0, 1e-7])
    assert model_digest(model) != before
    model.layers[0].bias.assign([0.0, 0.0])
    assert model_digest(model) == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_weights_of_all_types_have_a_digest(dtype):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, dtype=dtype)])
    before = model_digest(model)
    model.layers[0].bias.assign([0.0, 1.0])
    assert model_digest(model) != before


def test_a_layer_without_a_configuration_has_a_digest_of_its_weights():
    model = keras.Sequential([keras.Input((2,)), Unfinished(3), keras.layers.Dense(1)])
    before = model_digest(model)
    assert model_digest(model) == before
    model.layers[1].bias.assign([1.0])
    assert model_digest(model) != before


def scaled_by(factor, key="x"):
    return lambda batch: batch[key] / factor


FACTOR = 2.0


def scaled(batch):
    return batch["x"] / FACTOR


def adapted(*words):
    layer = keras.layers.TextVectorization(output_mode="multi_hot")
    layer.adapt(list(words))
    return layer


def normalization(mean):
    return keras.layers.Normalization(mean=mean, variance=1.0)


def wired(first, second):
    inputs = keras.Input((4,))
    layers = [keras.layers.Rescaling(2.0), keras.layers.ReLU(max_value=1.0)]
    return keras.Model(inputs, layers[second](layers[first](inputs)))


def joined_with(layer):
    return lambda batch: layer(batch["x"])


@pytest.mark.parametrize(
    ("make", "given", "other"),
    [
        (keras.layers.Resizing, (2, 3), (3, 2)),
        (keras.layers.GaussianNoise, (0.1,), (0.2,)),
        (adapted, ("good", "bad"), ("good", "poor")),
        (normalization, (1.0,), (2.0,)),
        (wired, (0, 1), (1, 0)),
        (scaled_by, (2.0,), (3.0,)),
        (scaled_by, (2.0, "x"), (2.0, "y")),
        (lambda factor: partial(np.multiply, factor), (2.0,), (3.0,)),
        (lambda *shape: joined_with(keras.layers.Resizing(*shape)), (2, 3), (3, 2)),
    ],
)
def test_steps_that_are_made_again_have_the_same_lasting_digest(make, given, other):
    def digest(arguments):
        return lasting_digest(Step.of("preprocess", make(*arguments)))

    assert digest(given) == digest(given) != digest(other)


def test_the_data_and_the_constants_of_functions_count(monkeypatch):
    def digest(function):
        return lasting_digest(Step.of("preprocess", function))

    before = digest(scaled)
    assert digest(scaled) == before
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert digest(scaled) != before
    assert digest(lambda batch: batch["x"] + 1) != digest(lambda batch: batch["x"] + 2)
    assert digest(lambda x, n={"a", "b"}: n) == digest(lambda x, n={"b", "a"}: n)
