"""A replica has the optimizer of its model, with settings that a Keras file does not store."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from kspark.replica import ReplicaSpec
from kspark.replica.building import build
from kspark.replica.optimizer import without_weight_decay

layers = keras.layers


@pytest.fixture(autouse=True)
def default_dtype_policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def mixed(kind, **compile_args):
    keras.config.set_dtype_policy("mixed_float16")
    keras.utils.set_random_seed(7)
    inputs, dense, last = keras.Input((4,)), layers.Dense(5), layers.Dense(3, dtype="float32")
    if kind == "sequential":
        model = keras.Sequential([inputs, dense, last])
    else:
        model = keras.Model(inputs, last(dense(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, **compile_args)
    return model


def optimizers_of(model):
    own = model.optimizer
    return type(own), type(getattr(own, "inner_optimizer", None))


@pytest.mark.parametrize(
    ("kind", "compile_args", "on_worker"),
    [
        ("sequential", {}, "float32"),
        ("functional", {}, "float32"),
        ("functional", {}, "mixed_float16"),
        ("functional", {"auto_scale_loss": False}, "float32"),
    ],
)
def test_mixed_precision_optimizers_are_restored(kind, compile_args, on_worker, rows, window_of):
    model, (x, y) = mixed(kind, **compile_args), rows(20)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        spec = ReplicaSpec.of(model)
        keras.config.set_dtype_policy(on_worker)
        replica = build(spec)
    assert keras.config.dtype_policy().name == on_worker
    assert optimizers_of(replica.model) == optimizers_of(model)
    replica.train(window_of(x, y), 4)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    states = zip(replica.get_optimizer_state(), model.optimizer.variables, strict=True)
    for ours, variable in states:
        np.testing.assert_allclose(ours, variable.numpy(), rtol=1e-5, atol=1e-7)
    for ours, expected in zip(replica.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_a_single_precision_model_stays_unchanged_under_a_mixed_policy(mlp):
    spec = ReplicaSpec.of(mlp("adam"))
    keras.config.set_dtype_policy("mixed_float16")
    assert isinstance(build(spec).model.optimizer, keras.optimizers.Adam)


EXCLUSIONS = {
    "var_list": lambda model: {"var_list": model.trainable_variables[:1]},
    "var_names": lambda _: {"var_names": ["bias"]},
}


@pytest.mark.parametrize("how", EXCLUSIONS)
@pytest.mark.parametrize("scaled", [False, True])
def test_exclusions_from_weight_decay_are_restored(how, scaled, mlp, rows, window_of):
    inner = keras.optimizers.AdamW(0.01, weight_decay=5.0)
    model, (x, y) = mlp(keras.optimizers.LossScaleOptimizer(inner) if scaled else inner), rows(20)
    inner.exclude_from_weight_decay(**EXCLUSIONS[how](model))
    for variable in model.trainable_variables:
        variable.assign_add(np.ones(variable.shape, "float32"))
    spec = ReplicaSpec.of(model)
    model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    replica = build(spec)
    for _ in range(2):
        replica.train(window_of(x, y), 4)
    for ours, expected in zip(replica.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    states = zip(replica.get_optimizer_state(), model.optimizer.variables, strict=True)
    for ours, variable in states:
        np.testing.assert_allclose(ours, variable.numpy(), rtol=1e-4, atol=1e-6)


def test_exclusions_are_read_as_in_keras(mlp):
    model = mlp(keras.optimizers.AdamW(weight_decay=0.1))
    variables = model.trainable_variables
    assert without_weight_decay(model.optimizer, variables) == ()
    model.optimizer.exclude_from_weight_decay(var_list=variables[2:3], var_names=["bia"])
    assert without_weight_decay(model.optimizer, variables) == (1, 2, 3)
    assert without_weight_decay(object(), variables) == ()


def test_exclusions_change_the_digest_and_keep_the_trained_state(mlp, rows):
    digests = set()
    for names in ([], ["bias"], ["kernel"]):
        model = mlp(keras.optimizers.AdamW(weight_decay=0.1))
        model.optimizer.exclude_from_weight_decay(var_names=names)
        model.fit(*rows(), verbose=0)
        spec = ReplicaSpec.of(model)
        digests.add(spec.digest)
        state = build(spec).get_optimizer_state()
        for ours, variable in zip(state, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(ours, variable.numpy())
    assert len(digests) == 3


def test_an_optimizer_that_was_assigned_after_compile_is_restored(mlp):
    model = mlp("sgd")
    model.optimizer = keras.optimizers.Adam(0.25)
    replica = build(ReplicaSpec.of(model))
    assert optimizers_of(replica.model) == optimizers_of(model)
    assert replica.learning_rate == 0.25
