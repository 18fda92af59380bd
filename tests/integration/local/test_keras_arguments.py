"""The arguments of Keras' methods do what they do in Keras, with one worker, or are refused.

`docs/arguments.md` names these tests. Keras itself says what the results must be.
"""

from __future__ import annotations

import re

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from kspark import SparkModel

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 3)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")
WEIGHTS = RANDOM.uniform(0.5, 2.0, size=50).astype("float32")


def network(**compile_args):
    """A small classifier, which begins with the same weights every time."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")]
    )
    arguments = {
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }
    model.compile(**{**arguments, **compile_args})
    return model


def branches(**compile_args):
    """A small model with two inputs and two outputs."""
    keras.utils.set_random_seed(3)
    a, b = keras.Input((3,), name="a"), keras.Input((), name="b")
    both = keras.layers.Concatenate()([a, keras.layers.Reshape((1,))(b)])
    outputs = {
        "p": keras.layers.Dense(1, name="p")(both),
        "q": keras.layers.Dense(2, "softmax", name="q")(both),
    }
    model = keras.Model({"a": a, "b": b}, outputs)
    arguments = {
        "optimizer": "adam",
        "loss": {"p": "mse", "q": "sparse_categorical_crossentropy"},
    }
    model.compile(**{**arguments, **compile_args})
    return model


def pair(make=network, **compile_args):
    """Two models that begin alike: one for Keras, and one for kspark."""
    return make(**compile_args), SparkModel(make(**compile_args))


def assert_equal_fits(plain, spark_model, *data, **arguments):
    """Fit both, and compare their histories and weights."""
    arguments = {"epochs": 2, "batch_size": 10, "shuffle": False, "verbose": 0, **arguments}
    expected = plain.fit(*data, **arguments)
    found = spark_model.fit(*data, **arguments)
    assert found.epoch == expected.epoch
    assert list(found.history) == list(expected.history)
    for name, values in expected.history.items():
        np.testing.assert_allclose(found.history[name], values, atol=1e-5, err_msg=name)
    for one, other in zip(spark_model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    return expected


FIT = {
    "batch_size": {"batch_size": 7},
    "initial_epoch": {"epochs": 4, "initial_epoch": 2},
    "class_weight": {"class_weight": {0: 1.0, 1: 3.0}, "validation_split": 0.2},
    "sample_weight": {"sample_weight": WEIGHTS, "validation_split": 0.2},
    "validation_split": {"validation_split": 0.3},
    "validation_data": {"validation_data": (X[:20], Y[:20], WEIGHTS[:20])},
    "validation_batch_size": {"validation_split": 0.5, "validation_batch_size": 3},
    "validation_freq": {"validation_split": 0.5, "validation_freq": [1, 3], "epochs": 4},
}
"""Arguments of `fit`."""


@pytest.mark.parametrize("argument", FIT)
def test_an_argument_of_fit_does_what_it_does_in_keras(one, argument):
    assert_equal_fits(*pair(), X, Y, **FIT[argument])


def test_x_and_y_may_be_what_they_are_in_keras(one):
    tensors = tf.constant(X), tf.constant(Y)
    tables = pd.DataFrame(X, columns=list("abc")), pd.Series(Y)
    assert_equal_fits(*pair(), *tensors, validation_data=tables, epochs=1)


def test_x_and_y_may_have_parts_for_several_inputs_and_outputs(one):
    x, y = {"a": X, "b": X[:, 0]}, {"p": X.sum(axis=1), "q": Y}
    plain, spark_model = pair(branches)
    assert_equal_fits(plain, spark_model, x, y, validation_data=(x, y), epochs=1)
    expected, found = plain.predict(x, verbose=0), spark_model.predict(x)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def test_a_fit_of_no_epochs_changes_nothing_and_calls_the_callbacks_of_its_ends(one):
    called = []
    callback = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: called.append("begin"),
        on_train_end=lambda logs: called.append("end"),
    )
    history = assert_equal_fits(*pair(), X, Y, epochs=2, initial_epoch=2, callbacks=[callback])
    assert history.epoch == []
    assert called == ["begin", "end"] * 2


class Told(keras.callbacks.Callback):
    """Notes the hooks of `evaluate` and `predict`, and what they are told."""

    def __init__(self):
        super().__init__()
        self.hooks = []

    def note(self, hook, *told):
        numbers = [{k: np.asarray(v) for k, v in t.items()} if t else t for t in told[-1:]]
        self.hooks.append((hook, *told[:-1], *numbers, self.params["steps"]))

    def on_test_begin(self, logs=None):
        self.note("test begin", logs)

    def on_test_batch_begin(self, batch, logs=None):
        self.note("test batch begin", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        self.note("test batch end", batch, logs)

    def on_test_end(self, logs=None):
        self.note("test end", logs)

    def on_predict_begin(self, logs=None):
        self.note("predict begin", logs)

    def on_predict_batch_begin(self, batch, logs=None):
        self.note("predict batch begin", batch, logs)

    def on_predict_batch_end(self, batch, logs=None):
        self.note("predict batch end", batch, logs)

    def on_predict_end(self, logs=None):
        self.note("predict end", logs)


def test_callbacks_of_evaluate_and_predict_are_told_what_keras_tells(one):
    """For a model that is compiled with all batches as `steps_per_execution`."""
    plain, spark_model = pair(steps_per_execution=5)
    expected, found = Told(), Told()
    for model, callback in ((plain, expected), (spark_model, found)):
        model.evaluate(X, Y, batch_size=10, verbose=0, callbacks=[callback])
        model.predict(X, batch_size=10, verbose=0, callbacks=[callback])
    assert len(expected.hooks) == 8
    for ours, theirs in zip(found.hooks, expected.hooks, strict=True):
        np.testing.assert_equal(ours[:-2], theirs[:-2])
        assert ours[-1] == theirs[-1]
        assert (ours[-2] or {}).keys() == (theirs[-2] or {}).keys()
        for name, value in (theirs[-2] or {}).items():
            np.testing.assert_allclose(ours[-2][name], value, atol=1e-5)
    assert found.model is spark_model.master_network
    frame = pd.DataFrame({"features": list(X)})
    with pytest.raises(ValueError, match="`callbacks` must be `None` for a DataFrame, and with"):
        spark_model.predict(one.createDataFrame(frame), callbacks=[found])


def test_shuffle_mixes_the_rows_of_each_worker(one):
    """The order is another one than that of Keras, and so are the numbers."""
    ordered, shuffled = SparkModel(network()), SparkModel(network())
    for model, shuffle in ((ordered, False), (shuffled, True)):
        model.fit(X, Y, batch_size=10, shuffle=shuffle, verbose=0)
    assert not np.allclose(ordered.get_weights()[0], shuffled.get_weights()[0], atol=1e-6)


@pytest.mark.parametrize(
    ("verbose", "shown"),
    [(0, ""), (1, r"Epoch 1/1 - .*\n"), (2, r"Epoch 1/1 - .*\n")],
)
def test_fit_shows_a_line_per_epoch(one, capsys, verbose, shown):
    SparkModel(network()).fit(X, Y, verbose=verbose)
    assert re.fullmatch(shown, capsys.readouterr().out)


COMPILE = {
    "weighted_metrics": {"weighted_metrics": ["accuracy"], "metrics": ["accuracy"]},
    "loss_weights": {"loss_weights": [2.0]},
    "run_eagerly": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 3},
    "auto_scale_loss": {"auto_scale_loss": False},
}
"""Arguments of `compile` that other tests do not compare with Keras."""


@pytest.mark.parametrize("argument", COMPILE)
def test_an_argument_of_compile_does_what_it_does_in_keras(one, argument):
    assert_equal_fits(*pair(**COMPILE[argument]), X, Y, sample_weight=WEIGHTS, epochs=1)


EVALUATE = {
    "batch_size": {"batch_size": 7},
    "sample_weight": {"sample_weight": WEIGHTS},
    "return_dict": {"return_dict": True},
    "callbacks": {"callbacks": []},
}
"""Arguments of `evaluate`."""


@pytest.mark.parametrize("argument", EVALUATE)
def test_an_argument_of_evaluate_does_what_it_does_in_keras(one, argument):
    plain, spark_model = pair(weighted_metrics=["accuracy"])
    expected = plain.evaluate(X, Y, verbose=0, **EVALUATE[argument])
    found = spark_model.evaluate(X, Y, verbose=0, **EVALUATE[argument])
    assert type(found) is type(expected)
    if argument == "return_dict":
        assert list(found) == list(expected)
        expected, found = list(expected.values()), list(found.values())
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"batch_size": 7}, {"callbacks": []}])
def test_predict_returns_what_it_returns_in_keras(one, arguments):
    plain, spark_model = pair()
    expected, found = (m.predict(X, verbose=0, **arguments) for m in (plain, spark_model))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_evaluate_and_predict_show_a_line(one, capsys, verbose):
    spark_model = SparkModel(network())
    spark_model.evaluate(X, Y, verbose=verbose)
    spark_model.predict(X, verbose=verbose)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - ")[0] for line in lines] == (["Evaluate", "Predict"] if verbose else [])
    assert verbose == 0 or "loss: " in lines[0]
