"""A replica that is renewed for a later fit trains the same bytes as one that is built for it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import ReplicaSpec
from kspark.replica import spec as spec_module
from kspark.replica.building import build, renewed

layers = keras.layers


class Scaled(keras.losses.Loss):
    """A loss with a variable, which callbacks may assign."""

    def __init__(self):
        super().__init__(name="scaled")
        self.scale = keras.Variable(2.0, name="scale")

    def call(self, y_true, y_pred):
        return self.scale * keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


class KeepsPart(keras.metrics.Metric):
    """A metric with a variable that `reset_state` does not reset."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = self.add_weight((), "ones", name="factor")
        self.total = self.add_weight((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(self.factor * keras.ops.sum(y_pred))

    def reset_state(self):
        self.total.assign(0.0)

    def result(self):
        return self.total


def dense(*inner, **compiled):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), *inner, layers.Dense(2)])
    model.compile(**{"optimizer": "adam", "loss": "mse", **compiled})
    return model


def with_lora():
    model = dense(layers.Dense(8, activation="relu"))
    model.layers[0].enable_lora(2)
    model.compile("adam", "mse")
    return model


MODELS = {
    "random": lambda: dense(layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.5)),
    "schedule": lambda: dense(
        optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5))
    ),
    "ema": lambda: dense(
        optimizer=keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=3)
    ),
    "scaled": lambda: dense(
        optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), 4.0)
    ),
    "loss variable": lambda: dense(loss=Scaled(), metrics=[keras.metrics.AUC(), "mae"]),
    "jit": lambda: dense(layers.Dense(8), jit_compile=True),
    "lora": with_lora,
}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(22, 4)).astype("float32")
    return x, rng.integers(0, 2, size=(22, 2)).astype("float32")


def everything(replica):
    values = [replica.get_vector(), *replica.get_fixed(), *replica.get_optimizer_state()]
    return [a.tobytes() for a in [*values, *replica.metric_state()]]


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_the_same_bytes(name, data, window_of):
    model, window = MODELS[name](), window_of(*data)
    first = ReplicaSpec.of(model)
    replica = build(first)
    replica.train(window, 4)
    model.fit(*data, batch_size=5, epochs=2, verbose=0)
    spec = ReplicaSpec.of(model)
    assert spec.digest == first.digest
    assert renewed(replica, spec)
    fresh = build(spec)
    for _ in range(2):
        for each in (replica, fresh):
            each.reset_metrics()
            each.train(window, 4)
        assert everything(replica) == everything(fresh)


def test_a_variable_that_a_callback_assigned_is_renewed(data):
    loss = Scaled()
    model = dense(loss=loss)
    replica = build(ReplicaSpec.of(model))
    loss.scale.assign(7.0)
    spec = ReplicaSpec.of(model)
    assert not renewed(replica, spec) or float(replica.model.loss.scale) == 7.0
    assert float(build(spec).model.loss.scale) == 7.0


def test_what_a_metric_of_the_user_does_not_reset_is_kept(data, window_of):
    part = KeepsPart(name="part")
    model = dense(metrics=[part])
    spec = ReplicaSpec.of(model)
    part.factor.assign(3.0)
    second = ReplicaSpec.of(model)
    assert second.digest != spec.digest
    results = []
    for trained in (build(second).model, model):
        results.append(trained.evaluate(*data, verbose=0, return_dict=True)["part"])
    assert results[0] == pytest.approx(results[1])


def test_models_that_run_eagerly_and_large_ones_are_built_anew(data, monkeypatch):
    eager = dense(run_eagerly=True)
    assert not renewed(build(ReplicaSpec.of(eager)), ReplicaSpec.of(eager))
    monkeypatch.setattr(spec_module, "MAX_VALUES_BYTES", 7)
    large = dense()
    assert not renewed(build(ReplicaSpec.of(large)), ReplicaSpec.of(large))


def test_inputs_of_another_kind_are_built_anew(data):
    model = dense()
    spec = ReplicaSpec.of(model)
    inputs = ReplicaSpec.of(dense(loss=None, optimizer="adam")).inputs
    assert inputs != spec.inputs
    assert not renewed(build(spec), ReplicaSpec.of(model, inputs=inputs))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.layers[0], "trainable", False) or m.compile("adam", "mse"),
        lambda m: m.compile("adam", "mae"),
        lambda m: m.compile("adam", "mse", metrics=["mae"]),
        lambda m: setattr(m.optimizer, "learning_rate", 0.5),
        lambda m: m.layers[0].enable_lora(2) or m.compile("adam", "mse"),
    ],
)
def test_a_model_that_changed_has_another_digest(change):
    model = dense(layers.Dense(3))
    before = ReplicaSpec.of(model).digest
    change(model)
    assert ReplicaSpec.of(model).digest != before
