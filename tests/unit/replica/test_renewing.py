"""A replica that is renewed for a later fit trains the same bytes as one that is built for it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import ReplicaSpec
from kspark.replica import spec as spec_module
from kspark.replica.building import build, renewed
from kspark.replica.pickling import resets_to_zero

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


class WeightedMean(keras.metrics.Mean):
    """A metric of Keras with a variable that its `reset_state` does not know."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = self.add_weight((), "ones", name="factor")

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(self.factor * keras.ops.sum(y_pred))


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
    "metrics": lambda: dense(metrics=[keras.metrics.AUC(), "mae"]),
    "sequences": lambda: dense(layers.Reshape((2, 2)), layers.Bidirectional(layers.LSTM(3))),
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


def adapted(layer, rows):
    layer.adapt(rows)
    return layer


class Own(layers.Layer):
    def call(self, x):
        return x


class OwnStep(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        return super().train_step(data)


def subclassed():
    model = OwnStep()
    model(np.zeros((1, 4)))
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: dense(adapted(layers.Normalization(), np.ones((5, 4)))),
        lambda: dense(adapted(layers.Discretization(num_bins=3), np.arange(8.0))),
        lambda: dense(Own()),
        lambda: dense(layers.Lambda(lambda x: 2 * x)),
        lambda: dense(loss=Scaled()),
        lambda: dense(loss=lambda y, p: keras.ops.mean(keras.ops.square(y - p), axis=-1)),
        lambda: dense(metrics=[KeepsPart()]),
        lambda: dense(metrics=[WeightedMean()]),
        lambda: dense(optimizer=keras.optimizers.SGD(lambda: 0.1)),
        lambda: dense(run_eagerly=True),
        subclassed,
    ],
)
def test_models_with_state_elsewhere_are_built_anew(make):
    assert ReplicaSpec.of(make()).values is None


def test_a_layer_that_is_adapted_again_is_built_anew(data, window_of):
    """Keras derives tensors from its variables, which the digest does not contain."""
    normalization = adapted(layers.Normalization(), data[0])
    model = dense(normalization)
    replica = build(ReplicaSpec.of(model))
    replica.train(window_of(*data), 4)
    normalization.adapt(5 * data[0] + 1)
    spec = ReplicaSpec.of(model)
    assert not renewed(replica, spec)
    evaluated = build(spec)
    evaluated.evaluate(window_of(*data), 22)
    assert evaluated.metric_results()["loss"] == pytest.approx(
        model.evaluate(*data, verbose=0), rel=1e-5
    )


def test_the_rows_of_the_earlier_fit_are_freed(data, window_of, monkeypatch):
    model, freed = dense(), []
    replica = build(ReplicaSpec.of(model))
    monkeypatch.setattr(replica, "forget_rows", lambda: freed.append(1))
    assert renewed(replica, ReplicaSpec.of(model))
    assert freed


def test_a_description_during_a_fit_is_not_renewed():
    model = dense()
    spec = ReplicaSpec.of(model)
    assert spec.values is not None
    assert spec.renewed(model).values is None


@pytest.mark.parametrize("kind", [KeepsPart, WeightedMean])
def test_what_a_metric_of_the_user_does_not_reset_is_kept(data, kind):
    part = kind(name="part")
    model = dense(metrics=[part])
    spec = ReplicaSpec.of(model)
    part.factor.assign(3.0)
    second = ReplicaSpec.of(model)
    assert second.digest != spec.digest
    results = []
    for trained in (build(second).model, model):
        results.append(trained.evaluate(*data, verbose=0, return_dict=True)["part"])
    assert results[0] == pytest.approx(results[1])


def test_a_variable_among_the_arguments_of_a_metric_is_not_reset():
    scaled = keras.metrics.MeanMetricWrapper(
        keras.losses.mean_squared_error, scale=keras.Variable(2.0)
    )
    assert not resets_to_zero(scaled)
    assert resets_to_zero(keras.metrics.MeanMetricWrapper(keras.losses.mean_squared_error))


@pytest.mark.parametrize("name", ["AUC", "MeanAbsoluteError", "F1Score", "R2Score", "MeanIoU"])
def test_the_state_of_a_metric_of_keras_does_not_change_the_digest(data, name):
    arguments = {"num_classes": 2} if name == "MeanIoU" else {}
    model = dense(metrics=[getattr(keras.metrics, name)(**arguments)])
    model.evaluate(*data, verbose=0)  # creates the variables of some metrics
    before = ReplicaSpec.of(model).digest
    model.evaluate(*data, verbose=0)
    assert ReplicaSpec.of(model).digest == before


def test_large_models_are_built_anew(monkeypatch):
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
