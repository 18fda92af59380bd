"""Models compiled with the positional arguments of Keras 2 train as if they had names."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.ml import ElephasEstimator, KerasClassifier
from kspark.spark_model.positional_metrics import correct_positional_metrics

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = np.eye(2, dtype="float32")[np.arange(12) % 2]


def first_column(y, p):
    return keras.ops.mean(keras.ops.abs(y[:, 0] - p[:, 0]))


class Share(keras.metrics.Mean):
    def update_state(self, y, p, sample_weight=None):
        return super().update_state(keras.ops.max(p, axis=-1), sample_weight)


def network(*arguments, **named):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax", name="out")])
    model.compile(keras.optimizers.Adam(0.1), "categorical_crossentropy", *arguments, **named)
    return model


def two_outputs(*arguments, **named):
    keras.utils.set_random_seed(3)
    entry = keras.Input((3,))
    outputs = [keras.layers.Dense(1, name=name)(entry) for name in ("a", "b")]
    model = keras.Model(entry, outputs)
    model.compile("sgd", ["mse", "mae"], *arguments, **named)
    return model


def trained(model, y=Y):
    return model.fit(X, y, epochs=2, batch_size=4, shuffle=False, verbose=0).history


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "metrics",
    [
        lambda: ["acc"],
        lambda: ("acc", "mse"),
        lambda: [first_column],
        lambda: [keras.metrics.CategoricalAccuracy()],
        lambda: [Share()],
    ],
)
def test_metrics_in_third_place_are_metrics(metrics):
    model = network(metrics())
    with pytest.warns(UserWarning, match="metrics as the third positional argument"):
        correct_positional_metrics(model)
    expected = trained(network(metrics=list(metrics())))
    same(trained(model), expected)


def test_numbers_in_fourth_place_are_the_weights_of_the_losses():
    model, y = two_outputs([["mae"], ["mse"]], [1.0, 0.25]), [Y[:, :1], Y[:, 1:]]
    with pytest.warns(UserWarning, match="compiled it again"):
        correct_positional_metrics(model)
    expected = trained(two_outputs(loss_weights=[1.0, 0.25], metrics=[["mae"], ["mse"]]), y)
    same(trained(model, y), expected)


def test_metrics_by_output_in_third_place_are_metrics():
    model, y = two_outputs({"a": "mae", "b": ["mse"]}), [Y[:, :1], Y[:, 1:]]
    with pytest.warns(UserWarning, match="third positional"):
        correct_positional_metrics(model)
    expected = trained(two_outputs(metrics={"a": "mae", "b": ["mse"]}), y)
    same(trained(model, y), expected)


def test_the_optimizer_its_state_and_the_other_arguments_are_kept():
    model = network(metrics=["acc"])
    trained(model)
    optimizer, loss = model.optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(
        optimizer,
        loss,
        ["acc"],
        weighted_metrics=["mse"],
        run_eagerly=True,
        steps_per_execution=3,
        jit_compile=False,
    )
    before = [v.numpy().copy() for v in optimizer.variables]
    with pytest.warns(UserWarning, match="third positional"):
        correct_positional_metrics(model)
    assert model.optimizer is optimizer
    assert model.loss is loss
    for variable, value in zip(optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    config = model.get_compile_config()
    assert (config["metrics"], config["weighted_metrics"]) == (["acc"], ["mse"])
    found = [config[n] for n in ("run_eagerly", "steps_per_execution", "jit_compile")]
    assert found == [True, 3, False]


def test_a_lambda_in_compile_causes_no_warning():
    model = network(metrics=["acc"])
    model.compile("sgd", lambda y, p: keras.ops.mean(keras.ops.square(y - p)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SparkModel(model)


@pytest.mark.parametrize("scales", [True, False])
def test_scaling_of_the_loss_is_kept(scales):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.dtype_policy = "mixed_float16"
    model.compile("sgd", "mse", ["mae"], auto_scale_loss=scales)
    with pytest.warns(UserWarning, match="third positional"):
        correct_positional_metrics(model)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) is scales


@pytest.mark.parametrize(
    "model",
    [
        network(metrics=["acc"]),
        network(),
        two_outputs([0.5, 0.25]),
        two_outputs({"a": 0.5, "b": np.float32(2)}, ["mae", "mse"]),
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]),
    ],
)
def test_other_models_are_left_as_they_are(model):
    compiled = model.compiled and model.get_compile_config()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        correct_positional_metrics(model)
    assert (model.compiled and model.get_compile_config()) == compiled


def test_metrics_in_both_places_are_refused():
    model = network(["acc"], ["mse"])
    rule = r"`loss_weights` must be numbers, .*Received: loss_weights=\['acc'\]"
    with pytest.raises(ValueError, match=rule):
        correct_positional_metrics(model)


@pytest.mark.parametrize("kind", [SparkModel, KerasClassifier, ElephasEstimator])
def test_models_and_stages_correct_a_model_with_one_warning(kind):
    model = network(["acc"])
    with pytest.warns(UserWarning, match="third positional argument") as caught:
        kind(model)
    assert len(caught) == 1
    assert model.get_compile_config()["metrics"] == ["acc"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind(model)


def test_the_elephas_stage_has_the_metrics_as_its_param():
    with pytest.warns(UserWarning, match="third positional"):
        stage = ElephasEstimator(network(["mse"]))
    assert stage.get_metrics() == ["mse"]


def test_a_model_that_is_compiled_later_is_corrected_by_fit_and_evaluate(monkeypatch):
    spark_model = SparkModel(network())

    def stop(*args, **kwargs):
        raise LookupError("as far as the data")

    monkeypatch.setattr("kspark.spark_model.inputs.Source.__init__", stop)
    for method in (spark_model.fit, spark_model.evaluate):
        spark_model.master_network.compile("sgd", "categorical_crossentropy", ["acc"])
        with pytest.raises(LookupError), pytest.warns(UserWarning, match="third positional"):
            method(X, Y)
