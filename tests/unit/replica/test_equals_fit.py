"""A replica that trains in order has the weights of `keras.Model.fit(shuffle=False)`."""

from __future__ import annotations

import keras
import numpy as np
import pytest

layers, ops = keras.layers, keras.ops


class Scale(layers.Layer):
    """A custom layer with a weight, a regularizer's loss and an argument."""

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape):
        self.factor = self.add_weight(
            shape=(shape[-1],),
            initializer=keras.initializers.Constant(self.start),
            regularizer="l2",
            name="factor",
        )

    def call(self, x):
        self.add_loss(0.01 * ops.mean(ops.square(x)))
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "start": self.start}


def values(model):
    return [v.numpy() for v in model.variables]


def assert_equal_training(replica, model, window, x, y, *, batch_size=4, epochs=3, **fit_args):
    """Train both, and compare weights, optimizer state and metrics."""
    for _ in range(epochs):
        replica.reset_metrics()
        replica.train(window, batch_size)
    history = model.fit(
        x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, **fit_args
    ).history
    for ours, keras_own in zip(values(replica.model), values(model), strict=True):
        assert ours.dtype == keras_own.dtype
        np.testing.assert_allclose(ours, keras_own, atol=1e-6)
    for ours, variable in zip(
        replica.get_optimizer_state(), model.optimizer.variables, strict=True
    ):
        np.testing.assert_allclose(ours, variable.numpy(), atol=1e-6)
    results = replica.metric_results()
    assert results.keys() == history.keys()
    for name, value in results.items():
        np.testing.assert_allclose(value, history[name][-1], atol=1e-5, err_msg=name)


COMPILED = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
}
EAGER = {
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)
    ),
    "clipnorm": lambda: keras.optimizers.Adam(0.01, clipnorm=0.05),
    "accumulation": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("name", COMPILED)
def test_every_optimizer_equals_fit_in_a_compiled_loop(name, mlp, rows, window_of, rebuilt):
    model, (x, y) = mlp(COMPILED[name](), metrics=["accuracy"]), rows()
    assert_equal_training(rebuilt(model), model, window_of(x, y), x, y)


@pytest.mark.parametrize("name", EAGER)
def test_every_optimizer_equals_fit_when_run_eagerly(name, mlp, rows, window_of, rebuilt):
    model, (x, y) = mlp(EAGER[name](), run_eagerly=True), rows()
    assert_equal_training(rebuilt(model), model, window_of(x, y), x, y)


def test_averaged_weights_are_finalized(mlp, rows, window_of, rebuilt):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True)
    model, (x, y) = mlp(optimizer, run_eagerly=True), rows()
    replica = rebuilt(model)
    replica.train(window_of(x, y), 4)
    replica.finalize()  # as `fit` does at its end
    model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
    for ours, keras_own in zip(values(replica.model), values(model), strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=1e-6)


def test_sample_weights_metrics_and_custom_layers_equal_fit(mlp, rows, window_of, rebuilt):
    more = [layers.BatchNormalization(), Scale(0.5), layers.Dense(4, kernel_constraint="max_norm")]
    model = mlp(
        "adam",
        *more,
        metrics=["accuracy"],
        weighted_metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)],
    )
    x, y = rows()
    weights = np.random.default_rng(0).random(len(x))
    assert_equal_training(
        rebuilt(model), model, window_of(x, y, weights), x, y, sample_weight=weights
    )


def test_class_weights_are_sample_weights(mlp, rows, window_of, rebuilt):
    model, (x, y) = mlp("sgd", run_eagerly=True), rows()
    table = {0: 1.0, 1: 3.0, 2: 0.0}
    window = window_of(x, y).with_class_weight(table)
    assert_equal_training(rebuilt(model), model, window, x, y, class_weight=table)


def two_headed(structure):
    keras.utils.set_random_seed(1)
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    hidden = layers.Dense(4, activation="relu")(layers.Concatenate()([a, b]))
    one, two = layers.Dense(1, name="one")(hidden), layers.Dense(3, name="two")(hidden)
    if structure == "dict":
        return keras.Model({"b": b, "a": a}, {"two": two, "one": one})
    return keras.Model([a, b], [one, two])


def two_headed_rows(structure):
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(10, 3)), "b": rng.normal(size=(10, 2))}
    y = {"one": rng.normal(size=(10, 1)), "two": rng.integers(0, 3, 10)}
    weights = {"one": rng.random(10), "two": rng.random(10)}
    if structure == "dict":
        return x, y, weights
    return list(x.values()), list(y.values()), list(weights.values())


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_two_inputs_and_two_outputs_equal_fit(structure, window_of, rebuilt):
    model = two_headed(structure)
    model.compile(
        "adam",
        loss={"one": "mse", "two": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        loss_weights={"one": 0.3, "two": 2.0},
        metrics={"one": ["mae"], "two": ["accuracy"]},
        weighted_metrics={"one": ["mse"], "two": []},
    )
    x, y, weights = two_headed_rows(structure)
    replica = rebuilt(model)
    window = window_of(x, y, weights)
    # Two batches alike: in a graph Keras counts batches for the losses of single outputs.
    assert_equal_training(replica, model, window, x, y, batch_size=5, sample_weight=weights)
    predicted = replica.structured_outputs(replica.predict(window, 4))
    expected = model.predict(x, verbose=0)
    assert type(predicted) is type(expected)
    keys = expected.keys() if structure == "dict" else range(2)
    for key in keys:
        np.testing.assert_allclose(predicted[key], expected[key], atol=1e-6)


def test_one_array_of_sample_weights_counts_for_all_outputs(window_of, rebuilt):
    model = two_headed("list")
    model.compile("sgd", loss=["mse", "mse"], run_eagerly=True)
    x, _, (weights, _) = two_headed_rows("list")
    y = [np.ones((10, 1)), np.ones((10, 3))]
    window = window_of(x, y, weights)
    assert_equal_training(rebuilt(model), model, window, x, y, sample_weight=weights)


def test_a_recurrent_model_of_embedded_integers_equals_fit(window_of, rebuilt):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(9, 4, mask_zero=True),
            layers.LSTM(3, return_sequences=True),
            layers.GRU(3),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (10, 5)), rng.integers(0, 2, 10)
    assert_equal_training(rebuilt(model), model, window_of(x, y), x, y, epochs=1)


class Subclassed(keras.Model):
    """A subclassed model whose `call` has no `training`, with its own training step."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        x, y = data
        logs = super().train_step((x, y))
        return {**logs, "double": 2.0 * logs["loss"]}

    def get_config(self):
        return {"units": self.units}


def test_a_custom_train_step_and_its_logs_equal_fit(rows, window_of, rebuilt):
    keras.utils.set_random_seed(1)
    model, (x, y) = Subclassed(3), rows()
    model(x[:1])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert_equal_training(rebuilt(model), model, window_of(x, y), x, y, epochs=2)


def test_frozen_layers_do_not_change(mlp, rows, window_of, rebuilt):
    model, (x, y) = mlp("sgd"), rows()
    model.layers[0].trainable = False
    model.compile("sgd", model.loss, run_eagerly=True)
    frozen = model.layers[0].get_weights()
    replica = rebuilt(model)
    assert_equal_training(replica, model, window_of(x, y), x, y)
    assert replica.spec.trainable_size == 5 * 3 + 3
    np.testing.assert_array_equal(replica.model.layers[0].get_weights()[0], frozen[0])


def test_dropout_masks_equal_those_of_fit(mlp, rows, window_of, rebuilt):
    model, (x, y) = mlp("sgd", layers.Dropout(0.5)), rows()
    model.fit(x, y, batch_size=4, verbose=0)  # the generator's counter is not zero any more
    assert_equal_training(rebuilt(model), model, window_of(x, y), x, y, epochs=2)


def test_a_jit_compiled_model_equals_fit(mlp, rows, window_of, rebuilt):
    model, (x, y) = mlp("sgd", jit_compile=True), rows(10)
    replica = rebuilt(model)
    assert replica.model.jit_compile is True
    assert_equal_training(replica, model, window_of(x, y), x, y, epochs=2)


def test_rows_follow_the_order_of_a_window_and_windows_may_be_split(mlp, rows, window_of, rebuilt):
    model, (x, y) = mlp("adam"), rows()
    replica = rebuilt(model)
    order = np.random.default_rng(5).permutation(len(x))
    first = window_of(x[order[:8]], y[order[:8]])
    rest = np.argsort(order[8:])
    second = window_of(x[np.sort(order[8:])], y[np.sort(order[8:])], order=np.argsort(rest))
    replica.train(first, 4, 0, 1)
    replica.train(first, 4, 1)
    replica.train(second, 4)
    model.fit(x[order], y[order], batch_size=4, shuffle=False, verbose=0)
    for ours, keras_own in zip(values(replica.model), values(model), strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=1e-6)


def test_text_input_equals_fit_with_a_vectorization_layer(window_of, rebuilt):
    vectorize = layers.TextVectorization(max_tokens=8, output_sequence_length=3)
    vectorize.adapt(["the red fox", "a blue dog", "the dog"])
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((), dtype="string"),
            vectorize,
            layers.Embedding(8, 2),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    x = np.array(["the fox", "a dog", "red dog", "blue fox", "dog"], object)
    y = np.arange(5.0)
    assert_equal_training(rebuilt(model), model, window_of(x, y), x, y, batch_size=2)


@pytest.mark.parametrize("metrics", [{}, {"one": ["mae"]}, {"two": ["accuracy"]}])
@pytest.mark.parametrize("structure", ["list", pytest.param("dict", marks=pytest.mark.thorough)])
def test_an_output_without_a_loss_equals_fit(structure, metrics, window_of, rebuilt):
    model = two_headed(structure)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss={"two": crossentropy, "one": None}, metrics=metrics)
    x, y, weights = two_headed_rows(structure)
    replica = rebuilt(model)
    targets = [t.name for t in replica.inputs.targets]
    assert targets == (["one", "two"] if "one" in metrics else ["two"])
    labels = two_headed_rows("dict")[1]
    window = window_of(x, [labels[name] for name in targets])
    assert_equal_training(replica, model, window, x, y, batch_size=5, epochs=2)
    driver = type(replica).of(model)
    driver.prepare_metrics()
    assert len(driver.metric_state()) == len(replica.metric_state())
