"""A model is loaded for prediction where its loss, metrics and optimizer are unknown."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark import saving
from kspark.saving.uncompiled import load_uncompiled

X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


class OwnLoss(keras.losses.Loss):
    def call(self, y, p):
        return keras.ops.mean(keras.ops.square(y - p), axis=-1)


class OwnMetric(keras.metrics.Mean):
    pass


class OwnOptimizer(keras.optimizers.SGD):
    pass


class OwnLayer(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


def own_loss(y, p):
    return keras.ops.mean(keras.ops.square(y - p), axis=-1)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    """None of the custom parts can be imported where the model is loaded."""
    for part in (OwnLoss, OwnMetric, OwnOptimizer, OwnLayer, own_loss):
        monkeypatch.setattr(part, "__module__", "elsewhere")


def network(*inside, optimizer="adam", loss="mse", **more):
    layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh"), *inside, keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile(optimizer, loss, **more)
    return model


def inner(**compiled):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)], name="inner")
    model.compile("sgd", **compiled)
    return model


CASES = {
    "loss": (lambda: network(loss=OwnLoss()), ["OwnLoss"]),
    "function": (lambda: network(loss=own_loss), ["own_loss"]),
    "metric": (lambda: network(metrics=[OwnMetric()]), ["OwnMetric"]),
    "weighted metric": (lambda: network(weighted_metrics=[OwnMetric()]), ["OwnMetric"]),
    "optimizer": (lambda: network(optimizer=OwnOptimizer(0.1)), ["OwnOptimizer"]),
    "inner model": (lambda: network(inner(loss=OwnLoss())), ["OwnLoss"]),
    "lambda": (lambda: network(loss=lambda y, p: keras.ops.mean(y - p, axis=-1)), []),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_predicts_without_the_parts_that_train_it(case, tmp_path):
    make, names = CASES[case]
    model, path = make(), str(tmp_path / "model.keras")
    saving.save_model(model, {}, path)
    with pytest.raises((TypeError, ValueError)):
        saving.load_model(path)
    loaded = load_uncompiled(path, custom_objects={})
    assert not loaded.model.compiled
    assert loaded.missing == names
    np.testing.assert_array_equal(loaded.model.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_missing_layer_is_named_and_the_loss_is_not(tmp_path):
    model, path = network(OwnLayer(), loss=OwnLoss()), str(tmp_path / "model.keras")
    saving.save_model(model, {}, path)
    with pytest.raises(ValueError, match="`custom_objects` must be .* with 'OwnLayer', used by"):
        load_uncompiled(path, custom_objects={})
    loaded = load_uncompiled(path, custom_objects={"OwnLayer": OwnLayer})
    assert loaded.missing == ["OwnLoss"]
    np.testing.assert_array_equal(loaded.model.predict(X, verbose=0), model.predict(X, verbose=0))


def test_code_in_a_layer_is_refused(tmp_path):
    layer = keras.layers.Lambda(lambda x: x * 2, output_shape=(4,))
    path = str(tmp_path / "model.keras")
    saving.save_model(network(layer), {}, path)
    with pytest.raises(ValueError, match="without code inside"):
        load_uncompiled(path, custom_objects={})
    loaded = load_uncompiled(path, custom_objects={}, safe_mode=False).model
    assert loaded.predict(X, verbose=0).shape == (5, 2)


def test_vocabularies_are_kept(tmp_path):
    words = keras.layers.StringLookup(output_mode="multi_hot")
    words.set_vocabulary(["c", "b"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Dense(1)])
    model.compile("sgd", OwnLoss())
    path = str(tmp_path / "model.keras")
    saving.save_model(model, {}, path)
    loaded = load_uncompiled(path, custom_objects={}).model
    assert loaded.layers[0].get_vocabulary() == words.get_vocabulary() == ["[UNK]", "c", "b"]
