"""A model and kspark's configuration survive both file formats."""

from __future__ import annotations

import json
import os
import zipfile
from functools import cache
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kspark.saving import SavedModel, load_model, save_model
from kspark.saving.rebuild import custom_names, known

CONFIG = {
    "mode": "hogwild",
    "frequency": 4,
    "num_workers": None,
    "batch_size": 64,
    "server_optimizer": {"class_name": "adam", "config": {"learning_rate": 0.5}},
}
STATE = {
    "first moment": np.arange(6, dtype="float32").reshape(2, 3),
    "step": np.array(7, dtype="int64"),
    "nothing": np.empty((0, 2), "float64"),
}
X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = np.stack([X.sum(axis=1), X[:, 0]], axis=1)


def trained(optimizer: object = None, **compiled: object) -> keras.Model:
    """A model after a few steps, eager because compiling takes longer than they do."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((3,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(4, activation="tanh")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    arguments = {"loss": "mse", "metrics": ["mae"], "run_eagerly": True, **compiled}
    model.compile(optimizer or keras.optimizers.Adam(0.01), **arguments)
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    return model


@cache
def model_of_tests() -> keras.Model:
    return trained()


def round_trip(model: keras.Model, path: Path, **kwargs: object) -> SavedModel:
    save_model(model, CONFIG, path, server_state=STATE)
    return load_model(path, **kwargs)


def values(variables: list) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assert_same(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(params=["keras", "h5"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"model.{request.param}"


def test_weights_and_config_are_restored(path: Path) -> None:
    model = model_of_tests()
    saved = round_trip(model, path)
    assert_same(saved.model.get_weights(), model.get_weights())
    assert saved.config == CONFIG
    assert saved.class_name == "SparkModel"


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(0.01),
        pytest.param(keras.optimizers.SGD(0.1, momentum=0.9), marks=pytest.mark.thorough),
        keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)),
        pytest.param(keras.optimizers.RMSprop(0.01, centered=True), marks=pytest.mark.thorough),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_training_continues_as_if_never_saved(path: Path, optimizer: object) -> None:
    config = keras.optimizers.serialize(optimizer)
    model = trained(keras.optimizers.deserialize(config))
    loaded = round_trip(model, path).model
    assert_same(values(loaded.optimizer.variables), values(model.optimizer.variables))
    for one in (model, loaded):
        one.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_compile_configuration_is_restored(path: Path) -> None:
    model = trained(
        loss=keras.losses.MeanSquaredError(reduction="sum"),
        metrics=["mae", keras.metrics.MeanSquaredError(name="square")],
        weighted_metrics=["mse"],
        loss_weights=0.25,
        steps_per_execution=3,
    )
    loaded = round_trip(model, path).model
    assert loaded.get_compile_config() == model.get_compile_config()
    assert loaded.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(
        model.evaluate(X, Y, verbose=0, return_dict=True)
    )


def test_the_server_state_is_restored(path: Path) -> None:
    state = round_trip(model_of_tests(), path).server_state
    assert list(state) == list(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(state[name], array)
        assert state[name].dtype == array.dtype


def test_saving_does_not_change_the_model(path: Path) -> None:
    model = trained(keras.optimizers.SGD(0.125))
    before = model.get_compile_config()
    save_model(model, CONFIG, path)
    assert model.get_compile_config() == before


def test_uncompiled_model_loads_uncompiled(path: Path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    loaded = round_trip(model, path).model
    assert not loaded.compiled
    assert_same(loaded.get_weights(), model.get_weights())


def test_h5_restores_an_optimizer_that_never_stepped(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.iterations.assign(5)
    loaded = round_trip(model, tmp_path / "a.h5").model
    assert int(loaded.optimizer.iterations) == 5


def test_a_config_larger_than_an_hdf5_attribute_is_restored(path: Path) -> None:
    config = {"note": "x" * 100_000}
    save_model(model_of_tests(), config, path)
    assert load_model(path).config == config


def test_plain_keras_opens_the_file(path: Path) -> None:
    model = model_of_tests()
    save_model(model, CONFIG, path, server_state=STATE)
    plain = keras.saving.load_model(path)
    assert_same(plain.get_weights(), model.get_weights())
    np.testing.assert_allclose(plain.evaluate(X, Y, verbose=0), model.evaluate(X, Y, verbose=0))


def test_plain_keras_may_save_the_file_again(path: Path) -> None:
    save_model(model_of_tests(), CONFIG, path, server_state=STATE)
    keras.saving.load_model(path).save(path)
    saved = load_model(path)
    assert (saved.config, saved.server_state) == ({}, {})


def test_a_subclassed_model_is_restored_from_a_keras_file(tmp_path: Path) -> None:
    model = Doubler()
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    model.fit(X, Y, verbose=0)
    loaded = round_trip(model, tmp_path / "a.keras", custom_objects={"Doubler": Doubler}).model
    assert_same(loaded.get_weights(), model.get_weights())
    assert_same(values(loaded.optimizer.variables), values(model.optimizer.variables))


def test_h5_refuses_a_subclassed_model(tmp_path: Path) -> None:
    model = Doubler()
    model(X)
    with pytest.raises(ValueError, match=r"`model` must be .*'\.keras' takes any"):
        save_model(model, CONFIG, tmp_path / "a.h5")
    assert os.listdir(tmp_path) == []


def test_h5_refuses_an_adapted_vocabulary(tmp_path: Path) -> None:
    words = keras.layers.StringLookup(output_mode="multi_hot")
    words.adapt(np.array(["left", "right"]))
    inner = keras.Sequential([keras.Input((1,), dtype="string"), words])
    model = keras.Sequential([keras.Input((1,), dtype="string"), inner, keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"vocabulary .* the layer 'string_lookup"):
        save_model(model, CONFIG, tmp_path / "a.h5")
    save_model(model, CONFIG, tmp_path / "a.keras")
    loaded = load_model(tmp_path / "a.keras").model
    text = np.array([["left"], ["right"], ["up"]])
    np.testing.assert_array_equal(loaded(text), model(text))


def test_h5_keeps_a_vocabulary_given_to_the_constructor(tmp_path: Path) -> None:
    words = keras.layers.StringLookup(vocabulary=["left", "right"], output_mode="multi_hot")
    model = keras.Sequential([keras.Input((1,), dtype="string"), words])
    loaded = round_trip(model, tmp_path / "a.h5").model
    np.testing.assert_array_equal(loaded(np.array([["right"]])), [[0, 0, 1]])


def test_custom_objects_are_restored(path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), Scale(), keras.layers.Dense(2, activation=cube)])
    model.compile("sgd", shifted, metrics=[shifted], run_eagerly=True)
    objects = {"Scale": Scale, "cube": cube, "shifted": shifted}
    loaded = round_trip(model, path, custom_objects=objects).model
    np.testing.assert_array_equal(loaded(X), model(X))
    assert loaded.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)


@pytest.mark.parametrize("missing", ["Scale", "cube", "shifted"])
def test_a_missing_custom_object_is_named_in_the_error(path: Path, missing: str) -> None:
    model = keras.Sequential([keras.Input((3,)), Scale(), keras.layers.Dense(2, activation=cube)])
    model.compile("sgd", shifted, metrics=[shifted], run_eagerly=True)
    save_model(model, CONFIG, path)
    objects = {"Scale": Scale, "cube": cube, "shifted": shifted}
    del objects[missing]
    with pytest.raises(ValueError, match=f"`custom_objects` must .* with '{missing}', used by"):
        load_model(path, custom_objects=objects)


def test_other_errors_of_keras_are_not_changed(path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), Scale()])
    save_model(model, CONFIG, path)
    with pytest.raises((TypeError, ValueError), match="refused by Broken"):
        load_model(path, custom_objects={"Scale": Broken})


@pytest.mark.parametrize("name", ["model", "model.hdf5", "model.keras.bak", "keras"])
def test_other_extensions_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"`path` must be a path ending in '\.keras' or '\.h5'"):
        save_model(model_of_tests(), CONFIG, name)
    with pytest.raises(ValueError, match=f"Received: path='{name}'"):
        load_model(name)


def test_a_config_that_is_not_json_is_refused_before_writing(path: Path) -> None:
    with pytest.raises(ValueError, match="`config` must be JSON data"):
        save_model(model_of_tests(), {"mode": object()}, path)
    assert not path.exists()


@pytest.mark.parametrize("bad", [np.array([None]), np.array(["text"]), np.array([1j])])
def test_server_state_that_is_not_numeric_is_refused_before_writing(path: Path, bad) -> None:
    state = {"good": np.ones(2), "bad": bad}
    with pytest.raises(ValueError, match="`server_state` must be arrays of numbers, also 'bad'"):
        save_model(model_of_tests(), CONFIG, path, server_state=state)
    assert not path.exists()


def test_a_value_that_is_not_a_model_is_refused(path: Path) -> None:
    with pytest.raises(TypeError, match=r"`model` must be a `keras\.Model`"):
        save_model("model", CONFIG, path)


def test_a_missing_file_raises_a_file_not_found_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=path.name):
        load_model(path)


def test_truncated_file_is_refused(path: Path) -> None:
    save_model(model_of_tests(), CONFIG, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises((ValueError, OSError)):
        load_model(path)


def test_a_file_that_is_not_a_model_is_refused(path: Path) -> None:
    path.write_text("Dear diary")
    with pytest.raises(ValueError, match="`path` must be a Keras model file, and whole"):
        load_model(path)


def test_keras_member_is_one_json_document(tmp_path: Path) -> None:
    save_model(model_of_tests(), CONFIG, tmp_path / "a.keras", server_state=STATE)
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        document = json.loads(archive.read("kspark.json"))
    expected = {"format": 1, "config": CONFIG, "server_state": list(STATE)}
    assert document == {**expected, "class_name": "SparkModel"}


def test_the_h5_attribute_has_the_format_of_elephas(tmp_path: Path) -> None:
    save_model(model_of_tests(), CONFIG, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        content = json.loads(file.attrs["distributed_config"])
        assert json.loads(file.attrs["training_config"])["loss"] == "mean_squared_error"
    assert content["class_name"] == "SparkModel"
    assert content["config"] == {
        "mode": "hogwild",
        "frequency": "batch",
        "parameter_server_mode": "http",
        "num_workers": 1,
        "batch_size": 64,
    }


def test_the_h5_attribute_has_the_settings_that_elephas_knows(tmp_path: Path) -> None:
    config = {
        "mode": "asynchronous",
        "frequency": "epoch",
        "parameter_server_mode": "socket",
        "num_workers": 3,
        "batch_size": 8,
    }
    save_model(model_of_tests(), config, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert json.loads(file.attrs["distributed_config"])["config"] == config


@pytest.mark.parametrize("change", [{"format": 3}, {"config": None}])
def test_document_of_another_format_is_refused(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "a.keras"
    model_of_tests().save(path)
    document = {"format": 1, "config": {}, "server_state": [], **change}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("kspark.json", json.dumps(document))
    with pytest.raises(ValueError, match=r"`path` must be a file .* kspark"):
        load_model(path)


@pytest.mark.parametrize(("facts", "number"), [({}, 1), ({"attributes": []}, 2)])
def test_only_files_with_facts_have_a_format_that_earlier_versions_refuse(
    path: Path, facts: dict, number: int
) -> None:
    save_model(model_of_tests(), CONFIG, path, facts=facts)
    assert load_model(path).facts == facts
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read("kspark.json"))
    else:
        with h5py.File(path) as file:
            document = json.loads(file.attrs["distributed_config"])["kspark"]
    assert document["format"] == number


def test_the_extension_does_not_decide_the_format_that_is_read(tmp_path: Path) -> None:
    save_model(model_of_tests(), CONFIG, tmp_path / "a.keras")
    os.rename(tmp_path / "a.keras", tmp_path / "a.h5")
    assert load_model(tmp_path / "a.h5").config == CONFIG


def test_only_unknown_names_need_custom_objects() -> None:
    parts = [
        {"class_name": "Dense", "config": {"activation": {"class_name": "Mine", "config": {}}}},
        {"class_name": "Functional", "config": {}},
        {"class_name": "Custom>Adam", "config": {}},
        {"class_name": "__keras_tensor__", "config": {}},
        {"class_name": "Inner", "module": "keras.src.inner", "config": {}},
        {"class_name": "function", "module": "builtins", "config": "relu"},
        {"class_name": "function", "module": "builtins", "config": "mine"},
    ]
    assert sorted(custom_names(parts)) == ["Mine", "mine"]
    assert known("tests>Registered", {})
    assert known("Registered", {})
    assert known("Mine", {"package>Mine": object})
    assert not known("Mine", {"Other": object})


@keras.saving.register_keras_serializable("tests")
class Registered(keras.layers.Layer):
    """Needs no custom_objects."""

    def call(self, x):
        return 2 * x


def test_registered_layer_needs_no_custom_objects(path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), Registered()])
    np.testing.assert_array_equal(round_trip(model, path).model(X), 2 * X)


class Doubler(keras.Model):
    """A subclassed model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return 2 * self.dense(x)

    def get_config(self):
        return super().get_config()


class Scale(keras.layers.Layer):
    """A layer that is not registered."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.factor


class Broken(Scale):
    """Fails by itself, whatever custom objects there are."""

    def __init__(self, **kwargs):
        raise ValueError("refused by Broken")


def cube(x):
    return x**3


def shifted(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred + 1) ** 2, axis=-1)
