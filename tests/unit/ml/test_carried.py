"""The Keras model of a stage: copies for fits, and models for prediction."""

import threading
import types

import keras
import numpy as np
import pytest

from kspark.ml import (
    KerasEstimator,
)
from kspark.ml.carried import CarriedModel
from kspark.replica.digest import model_digest

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.dense(x)


def test_a_new_model_keeps_the_custom_objects(make):
    stage = KerasEstimator(make(), customObjects={"Twice": Twice})
    first = stage.getModel()
    assert stage.setModel(make()) is stage
    assert stage.getModel() is not first
    assert stage.carried.custom_objects == {"Twice": Twice}


def test_a_clone_predicts_the_same_and_trains_independently(make):
    model = make(optimizer=keras.optimizers.Adam(0.125), metrics=["accuracy"])
    model.fit(X, np.arange(6) % 3, verbose=0)
    clone = CarriedModel(model).clone()
    np.testing.assert_array_equal(clone.predict(X, verbose=0), model.predict(X, verbose=0))
    assert clone.optimizer.iterations == model.optimizer.iterations == 1
    assert float(clone.optimizer.learning_rate) == 0.125
    before = model_digest(model)
    clone.fit(X, np.arange(6) % 3, verbose=0)
    assert model_digest(model) == before != model_digest(clone)


def test_cloning_gives_no_warning(make, recwarn):
    CarriedModel(make()).clone()
    assert [w for w in recwarn if "optimizer" in str(w.message)] == []


def test_a_clone_finds_custom_layers_by_itself():
    model = keras.Sequential([keras.Input((4,)), Twice(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    clone = CarriedModel(model).clone()
    assert type(clone.layers[0]) is Twice


def test_a_predicting_model_has_no_optimizer_state_but_the_same_outputs(make):
    model = make()
    lean = CarriedModel(model).predicting()
    assert lean.optimizer is not model.optimizer
    assert [v.shape for v in lean.trainable_variables] == [
        v.shape for v in model.trainable_variables
    ]
    np.testing.assert_array_equal(lean.predict(X, verbose=0), model.predict(X, verbose=0))
    assert model.loss == "sparse_categorical_crossentropy"


def test_a_subclassed_model_that_is_not_compiled_is_shared(monkeypatch):
    model = Subclassed()
    model.build((None, 4))
    made = []
    application = types.SimpleNamespace(application="a")
    monkeypatch.setattr("kspark.ml.carried.engine_of", lambda spark: application)
    monkeypatch.setattr("kspark.ml.carried.SharedModel", lambda spark, spec, key: made.append(spec))
    stage = CarriedModel(model, {"Subclassed": Subclassed})
    thread = threading.Thread(target=stage.shared, args=(None,), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for itself"
    assert [spec.weights.size for spec in made] == [4 * 2 + 2]


def test_a_new_vocabulary_is_sent_to_the_workers(monkeypatch):
    words = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Dense(1)])
    application = types.SimpleNamespace(application="a")
    monkeypatch.setattr("kspark.ml.carried.engine_of", lambda spark: application)
    monkeypatch.setattr(
        "kspark.ml.carried.SharedModel",
        lambda spark, spec, key: types.SimpleNamespace(spec=spec, key=key),
    )
    stage, rows = CarriedModel(model), keras.ops.convert_to_tensor([["a"], ["b"], ["c"]])
    first = stage.shared(None)
    assert stage.shared(None) is first
    words.set_vocabulary(["c", "b"])
    second = stage.shared(None)
    assert second is not first
    assert stage.shared(None) is second
    expected = model.predict(rows, verbose=0)
    found = second.spec.model.make().predict(rows, verbose=0)
    np.testing.assert_array_equal(found, expected)


def test_subclassed_models_predict_but_have_no_layers_to_show():
    model = Subclassed()
    model.build((None, 4))
    carried = CarriedModel(model, {"Subclassed": Subclassed})
    with pytest.raises(ValueError, match="left out for a subclassed model"):
        carried.predicting("dense")
    lean = carried.predicting()
    assert lean.compiled
    assert not model.compiled
    np.testing.assert_array_equal(lean.predict(X, verbose=0), model.predict(X, verbose=0))
