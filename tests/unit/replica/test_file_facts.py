"""A model that was saved and loaded has what Keras' files leave out."""

from __future__ import annotations

import json
import logging

import keras
import numpy as np
import pytest

from kspark.replica.file_facts import FileFacts

layers, ops = keras.layers, keras.ops


class Pinball(keras.losses.Loss):
    """A loss without `get_config`."""

    def __init__(self, q=0.5, **kwargs):
        super().__init__(**kwargs)
        self.q = q

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.q * error, (self.q - 1) * error), axis=-1)


class Required(Pinball):
    def __init__(self, q):
        super().__init__(q)


class OwnCompile(keras.Sequential):
    """Compiles itself when it is made, and so also when it is loaded."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.compile()

    def compile(self, optimizer="adam", loss="mse", **kwargs):
        super().compile(optimizer=optimizer, loss=loss, **kwargs)


def dense(*inner, kind=keras.Sequential, loss="mse", optimizer="adam"):
    keras.utils.set_random_seed(5)
    model = kind([keras.Input((4,)), *inner, layers.Dense(2)])
    model.compile(optimizer, loss)
    return model


def through_a_file(model, tmp_path, objects=None):
    """Save and load a model with its facts."""
    facts = FileFacts.of(model)
    json.dumps(facts.data)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=objects)
    FileFacts(facts.data, facts.arrays).apply(loaded, objects or {})
    return loaded


def check_trains_alike(left, right):
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    for model in (left, right):
        model.fit(x, x[:, :2], batch_size=4, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(left.variables, right.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    for ours, theirs in zip(left.optimizer.variables, right.optimizer.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)


class Backbone(layers.Layer):
    """Keeps what KerasHub's models keep: initializers with a drawn seed, and ids of layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drawn_by = keras.initializers.TruncatedNormal(stddev=0.02)
        self.inner = layers.Dense(4, kernel_initializer=self.drawn_by)
        self._inner_ids = {id(self.inner)}

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


def test_what_a_built_model_does_not_use_needs_no_facts(caplog):
    assert FileFacts.of(dense(Backbone())).data == {}
    assert caplog.text == ""


def test_an_ordinary_model_needs_no_facts():
    assert FileFacts.of(dense(layers.Dense(3, "relu"), layers.Dropout(0.2))).data == {}
    assert FileFacts.of(keras.Sequential([layers.Dense(2)])) == FileFacts()


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_lora_goes_on_learning_after_it_was_loaded(tmp_path):
    first = layers.Dense(3)
    model = dense(first)
    first.enable_lora(2)
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    loaded = through_a_file(model, tmp_path)
    before = loaded.layers[0].lora_kernel_a.numpy()
    check_trains_alike(loaded, model)
    assert not np.array_equal(loaded.layers[0].lora_kernel_a.numpy(), before)


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_lora_is_loaded_with_its_scale(tmp_path):
    first = layers.Dense(3)
    model = dense(first)
    first.enable_lora(2, lora_alpha=9.0)
    model.compile("adam", "mse")
    x = np.ones((8, 4))
    model.fit(x, np.ones((8, 2)), verbose=0)
    loaded = through_a_file(model, tmp_path)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_exclusions_and_frozen_variables_are_kept(tmp_path):
    first = layers.Dense(3, bias_initializer="ones")
    model = dense(first)
    first.kernel.trainable = False
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[first.bias])
    model.compile(optimizer, "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    check_trains_alike(through_a_file(model, tmp_path), model)


def test_a_model_that_compiles_itself_keeps_the_users_compilation(tmp_path):
    model = dense(kind=OwnCompile, optimizer=keras.optimizers.SGD(0.3, momentum=0.5), loss="mae")
    loaded = through_a_file(model, tmp_path, {"OwnCompile": OwnCompile})
    assert (type(loaded.optimizer).__name__, loaded.loss) == ("SGD", "mae")
    check_trains_alike(loaded, model)


def test_arguments_of_losses_without_a_configuration_are_kept(tmp_path):
    loaded = through_a_file(dense(loss=Pinball(0.9)), tmp_path, {"Pinball": Pinball})
    assert loaded.loss.q == 0.9


def test_a_loss_that_no_file_restores_is_named_in_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "kspark"):
        FileFacts.of(dense(loss=Required(0.9)))
    assert "cannot be rebuilt from a file" in caplog.text


FACTOR = 2.0


def test_a_lambda_with_global_names_is_named_in_a_warning(caplog):
    functions = [lambda x: x * 2.0, lambda x: x * FACTOR]
    with caplog.at_level(logging.WARNING, "kspark"):
        facts = FileFacts.of(dense(*(layers.Lambda(f) for f in functions)))
    assert facts.data == {}
    assert caplog.messages == [
        "`_layers[2].function` is not saved: a file has no place for function. Write a complete "
        "`get_config`, or set it again after loading."
    ]


@pytest.mark.parametrize(
    "attribute",
    [
        [["__class__"], "x", 1],
        [["layers", 0, "backend"], "floatx", 1],
        [["_layers", 1], "call", 1],
        [[], "__doc__", 1],
    ],
)
def test_attributes_of_nothing_in_the_model_are_refused(attribute):
    for key in ("attributes", "compiled"):
        with pytest.raises(ValueError, match="unknown attribute"):
            FileFacts({key: [attribute]}).apply(dense(), {})


def test_values_that_json_changes_are_named_in_a_warning(tmp_path, caplog):
    loss = Pinball(0.9)
    loss.table = {0: 1.0}
    loss.factor = np.float32(0.5)
    with caplog.at_level(logging.WARNING, "kspark"):
        loaded = through_a_file(dense(loss=loss), tmp_path, {"Pinball": Pinball})
    assert "`loss.table` is not saved" in caplog.text
    assert loaded.loss.q == 0.9


def test_a_model_that_keras_restores_in_another_order_needs_no_facts(tmp_path):
    model = dense(layers.Dense(8, "relu"))
    model.quantize("float8")
    model.compile("adam", "mse")
    assert FileFacts.of(model) == FileFacts()
