"""A copy of a model trains as the model itself does, whatever Keras' files leave out."""

from __future__ import annotations

import pickle
from functools import partial

import keras
import numpy as np
import pytest

from kspark.replica import Replica, ReplicaSpec
from kspark.replica.building import build, renewed

layers, ops = keras.layers, keras.ops


def crossed(spec):
    """As Spark brings it to a worker."""
    return pickle.loads(pickle.dumps(spec, protocol=pickle.HIGHEST_PROTOCOL))


not_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="plain Keras fails on JAX, in its own `fit`"
)


def check_trains_alike(model, x, y, window_of, atol=1e-6):
    """Train a copy and the model itself, and compare weights, optimizer state and metrics.

    Then do it again, as workers do in a second fit: with the same copy if it may be renewed.
    """
    spec = crossed(ReplicaSpec.of(model))
    replica = build(spec)
    train_both(replica, model, x, y, window_of, atol)
    second = crossed(ReplicaSpec.of(model))
    replica.train(window_of(x, y), 4)  # The driver's model does not get these steps.
    again = second.digest == spec.digest and renewed(replica, second)
    train_both(replica if again else build(second), model, x, y, window_of, atol)


def train_both(replica, model, x, y, window_of, atol):
    for _ in range(3):
        replica.reset_metrics()
        replica.train(window_of(x, y), 4)
    history = model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0).history
    for ours, theirs in zip(replica.model.variables, model.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=atol, err_msg=theirs.path)
    states = zip(replica.get_optimizer_state(), model.optimizer.variables, strict=True)
    for ours, variable in states:
        np.testing.assert_allclose(ours, variable.numpy(), atol=atol, err_msg=variable.path)
    results = replica.metric_results()
    assert results == pytest.approx({k: v[-1] for k, v in history.items()}, abs=1e-5)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(22, 4)).astype("float32")
    return x, (x @ rng.normal(size=(4, 2))).astype("float32")


def dense(*inner, units=2, **compiled):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), *inner, layers.Dense(units)])
    model.compile(**{"optimizer": "adam", "loss": "mse", **compiled})
    return model


# -- losses and metrics without `get_config` ----------------------------------------------------


class Pinball(keras.losses.Loss):
    def __init__(self, q=0.5, **kwargs):
        super().__init__(**kwargs)
        self.q = q

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.q * error, (self.q - 1) * error), axis=-1)


class NeedsArgument(Pinball):
    def __init__(self, q):
        super().__init__(q, reduction="sum", name="needs")


class Above(keras.metrics.Metric):
    def __init__(self, threshold, **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold
        self.counts = [self.add_weight((), "zeros", name=name) for name in ("seen", "above")]

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.counts[0].assign_add(ops.cast(ops.size(y_pred), "float32"))
        self.counts[1].assign_add(ops.sum(ops.cast(y_pred > self.threshold, "float32")))

    def result(self):
        return self.counts[1] / self.counts[0]


def power(exponent):
    def loss(y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** exponent, axis=-1)

    return loss


class Callable:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, y_true, y_pred):
        return self.factor * ops.mean(ops.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    "compiled",
    [
        {"loss": Pinball(0.9), "metrics": [Pinball(0.7)]},
        {"loss": NeedsArgument(0.2), "metrics": [Above(0.25)]},
        {"loss": power(3), "metrics": [power(1), "mae"]},
        {"loss": Callable(5.0), "weighted_metrics": [keras.metrics.MeanSquaredError()]},
        {"loss": lambda y_true, y_pred: ops.mean(ops.abs(y_true - y_pred), axis=-1)},
        {"loss": keras.losses.Huber(0.1), "metrics": [keras.metrics.AUC(num_thresholds=7)]},
    ],
)
def test_losses_and_metrics_of_every_form_train_alike(compiled, data, window_of):
    x, y = data
    if any(isinstance(m, keras.metrics.AUC) for m in compiled.get("metrics", ())):
        y = (y > 0).astype("float32")
        check_trains_alike(dense(layers.Dense(3), **compiled), x, y, window_of)
        return
    check_trains_alike(dense(**compiled), x, y, window_of)


def test_a_loss_may_use_weights_of_the_model(data, window_of):
    first = layers.Dense(3)

    def penalized(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1) + ops.sum(ops.abs(first.kernel))

    check_trains_alike(dense(first, loss=penalized), *data, window_of)


@not_on_jax
def test_a_loss_may_use_the_step_counter_of_the_optimizer(data, window_of):
    optimizer = keras.optimizers.Adam(0.05)
    iterations = optimizer.iterations

    def growing(y_true, y_pred):
        return ops.cast(iterations, "float32") * ops.mean(ops.abs(y_true - y_pred), axis=-1)

    check_trains_alike(dense(optimizer=optimizer, loss=growing), *data, window_of)


# -- optimizers ---------------------------------------------------------------------------------


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without `get_config`."""

    def __init__(self, peak):
        self.peak = peak

    def __call__(self, step):
        return self.peak * ops.minimum(ops.cast(step, "float32") / 5.0, 1.0)


class Damped(keras.optimizers.SGD):
    """An optimizer without `get_config`."""

    def __init__(self, damping=1.0, **kwargs):
        super().__init__(**kwargs)
        self.damping = damping

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient * self.damping, variable, learning_rate)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(Warmup(0.05)),
        lambda: keras.optimizers.SGD(lambda: 0.01),
        lambda: keras.optimizers.Lamb(0.01),
        lambda: Damped(0.5, learning_rate=0.05, momentum=0.9),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(Warmup(0.05))),
        lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=4),
        pytest.param(
            lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=3),
            marks=not_on_jax,
        ),
    ],
)
def test_optimizers_without_a_configuration_train_alike(make, data, window_of):
    check_trains_alike(dense(layers.Dense(3), optimizer=make()), *data, window_of)


@pytest.mark.parametrize("alpha", [None, 9.0])
def test_lora_trains_alike_with_any_scale(data, window_of, alpha):
    model = dense(layers.Dense(6, activation="relu"))
    model.layers[0].enable_lora(2, lora_alpha=alpha)
    model.compile("sgd", "mse")
    model.fit(*data, epochs=2, verbose=0)
    replica = build(crossed(ReplicaSpec.of(model)))
    predicted = replica.predict(window_of(data[0]), 8)[0]
    np.testing.assert_allclose(predicted, model.predict(data[0], verbose=0), atol=1e-6)
    check_trains_alike(model, *data, window_of)


def test_lora_of_an_embedding_has_its_scale(window_of):
    keras.utils.set_random_seed(3)
    embedding = layers.Embedding(9, 4)
    model = keras.Sequential([keras.Input((3,), dtype="int32"), embedding, layers.Flatten()])
    embedding.enable_lora(2, lora_alpha=8.0)
    model.compile("sgd", "mse")
    x = np.arange(12, dtype="int32").reshape(4, 3) % 9
    model.fit(x, np.ones((4, 12)), epochs=3, verbose=0)
    predicted = build(crossed(ReplicaSpec.of(model))).predict(window_of(x), 8)[0]
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), atol=1e-6)


def test_weight_decay_exclusions_and_frozen_variables_train_alike(data, window_of):
    first = layers.Dense(3, bias_initializer=keras.initializers.Constant(4.0))
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    model = dense(first, layers.BatchNormalization())
    optimizer.exclude_from_weight_decay(var_list=[first.bias])
    first.kernel.trainable = False
    model.layers[1].gamma.trainable = False
    model.compile(optimizer, "mse")
    before = first.kernel.numpy()
    check_trains_alike(model, *data, window_of)
    np.testing.assert_array_equal(first.kernel.numpy(), before)


def test_a_frozen_block_with_a_trainable_layer_trains_alike(data, window_of):
    block = keras.Sequential([layers.Dense(5), layers.Dense(3)])
    model = dense(block)
    block.trainable = False
    block.layers[1].trainable = True
    block.layers[1].bias.trainable = False
    model.compile("adam", "mse")
    check_trains_alike(model, *data, window_of)


# -- layers -------------------------------------------------------------------------------------


class Bounded(keras.constraints.Constraint):
    def __init__(self, limit=9.0):
        self.limit = limit

    def __call__(self, value):
        return ops.clip(value, -self.limit, self.limit)


class Pull(keras.regularizers.Regularizer):
    def __init__(self, strength=0.0):
        self.strength = strength

    def __call__(self, value):
        return self.strength * ops.sum(ops.square(value - 1.0))

    def get_config(self):
        return {}


class Shifted(layers.Layer):
    """A layer whose attribute is set after it was made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shift = 0.0

    def call(self, x):
        return x + self.shift


def test_own_constraints_and_regularizers_train_alike(data, window_of):
    first = layers.Dense(3, kernel_constraint=Bounded(0.2), bias_regularizer=Pull(0.5))
    model = dense(first)
    check_trains_alike(model, *data, window_of)
    assert np.abs(first.kernel.numpy()).max() <= np.float32(0.2)


def test_attributes_of_own_layers_are_carried_over(data, window_of):
    shifted = Shifted()
    shifted.shift = 2.5
    check_trains_alike(dense(shifted), *data, window_of)


class Settings:
    def __init__(self, shift):
        self.shift = shift


class Configured(layers.Layer):
    """A layer whose attributes are objects of several kinds."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.settings, self.scale, self.skipped = Settings(0.0), partial(ops.multiply, 1.0), {0}

    def call(self, x):
        return self.scale(x) + self.settings.shift + len(self.skipped)


def test_objects_in_attributes_of_own_layers_are_carried_over(data, window_of):
    layer = Configured()
    layer.settings, layer.scale, layer.skipped = Settings(2.0), partial(ops.multiply, 3.0), {0, 1}
    copy = build(crossed(ReplicaSpec.of(dense(layer)))).model.layers[0]
    assert copy.settings.shift == 2.0
    assert copy.scale.args == (3.0,)
    assert copy.skipped == {0, 1}


def test_functions_with_other_keyword_defaults_stay_apart():
    def scaled(factor):
        def activation(x, *, factor=factor):
            return factor * x

        return activation

    model = dense(*(layers.Dense(2, activation=scaled(factor)) for factor in (2.0, 3.0)))
    copy = build(crossed(ReplicaSpec.of(model))).model
    assert [float(layer.activation(1.0)) for layer in copy.layers[:2]] == [2.0, 3.0]


def test_regularizers_that_keras_does_not_use_are_not_used_by_a_copy(data, window_of):
    first = layers.Dense(3)
    model = dense(first)
    first.kernel_regularizer = keras.regularizers.L2(1.0)  # after the variables were made
    check_trains_alike(model, *data, window_of)


def test_constraints_of_single_variables_are_carried_over(data, window_of):
    first = layers.Dense(3)
    model = dense(first)
    first.kernel.constraint = keras.constraints.NonNeg()
    check_trains_alike(model, *data, window_of)
    assert first.kernel.numpy().min() >= 0


def test_dropout_without_a_seed_trains_alike(data, window_of):
    check_trains_alike(dense(layers.Dense(8), layers.Dropout(0.4)), *data, window_of)


def test_a_seed_that_the_first_copy_has_by_chance_is_carried_over(data, window_of):
    model = dense(layers.Dense(8), layers.Dropout(0.4))
    keras.utils.set_random_seed(3)  # The copy for the comparison draws what the model drew.
    spec = crossed(ReplicaSpec.of(model))
    keras.utils.set_random_seed(4)
    train_both(build(spec), model, *data, window_of, 1e-6)


def test_activations_that_are_lambdas_train_alike(data, window_of):
    scale = 3.0
    inner = (layers.Dense(5, lambda t: t * scale), layers.Activation(lambda t: t - 1))
    check_trains_alike(dense(*inner), *data, window_of)


def test_lora_trains_alike(data, window_of):
    first = layers.Dense(3)
    model = dense(first)
    first.enable_lora(2)
    model.compile("adam", "mse")
    before = first.lora_kernel_a.numpy()
    check_trains_alike(model, *data, window_of)
    assert not np.array_equal(first.lora_kernel_a.numpy(), before)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_models_are_copied(mode, data):
    x, _ = data
    model = dense(layers.Dense(8, "relu"))
    model.quantize(mode)
    model.compile("sgd", "mse")
    copy = build(crossed(ReplicaSpec.of(model))).model
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_a_float8_model_is_copied_although_keras_changes_the_order_of_its_variables(data):
    x, y = data
    model = dense(layers.Dense(8, "relu"), layers.Dense(8, "relu"))
    model.quantize("float8")
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, epochs=1, batch_size=4, shuffle=False, verbose=0)
    replica = build(crossed(ReplicaSpec.of(model)))
    copy = replica.model
    names = [[v.path for v in each.trainable_variables] for each in (model, copy)]
    assert names[0] != names[1]  # otherwise this test shows nothing
    np.testing.assert_array_equal(replica.get_vector(), Replica.of(model).get_vector())
    for each in (model, copy):
        each.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    for one, other in zip(copy.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)
