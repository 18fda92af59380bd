"""Loading a file runs nothing that the file brought along."""

from __future__ import annotations

import base64
import builtins
import json
import marshal
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kspark.data import dict_to_model
from kspark.ml import ElephasEstimator, load_ml_estimator, load_ml_transformer
from kspark.saving import load_model, save_model
from kspark.saving.rebuild import refuse_code


def attack(x):  # its code object goes into the files; running it is what must not happen
    import builtins

    builtins.kspark_was_attacked = True
    return x


CODE = base64.b64encode(marshal.dumps(attack.__code__)).decode()
KERAS_3 = {"class_name": "__lambda__", "config": {"code": CODE, "defaults": None, "closure": None}}
KERAS_2 = [CODE, None, None]


@pytest.fixture(autouse=True)
def nothing_ran():
    yield
    ran = builtins.__dict__.pop("kspark_was_attacked", False)
    assert not ran


def small() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def model_with(config: dict) -> dict:
    """The configuration of a Sequential with one layer of the attacker's."""
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "name": "sequential",
            "layers": [
                {
                    "module": "keras.layers",
                    "class_name": "InputLayer",
                    "config": {"batch_shape": [None, 3], "dtype": "float32", "name": "x"},
                    "registered_name": None,
                },
                config,
            ],
        },
        "registered_name": None,
    }


def lambda_layer(function: object, **config: object) -> dict:
    return {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "lambda", "function": function, "arguments": {}, **config},
        "registered_name": None,
    }


def wrapped(layer: dict) -> dict:
    """The layer inside of another one."""
    return {
        "module": "keras.layers",
        "class_name": "TimeDistributed",
        "config": {"name": "outer", "layer": layer},
        "registered_name": None,
    }


ATTACKS = {
    "lambda": lambda_layer(KERAS_3),
    "lambda of Keras 2": lambda_layer(KERAS_2, function_type="lambda"),
    "output shape": lambda_layer("relu", output_shape=KERAS_3),
    "output shape of Keras 2": lambda_layer("relu", output_shape=KERAS_2),
    "mask of Keras 2": lambda_layer("relu", mask=KERAS_2),
    "inside a wrapper": wrapped(lambda_layer(KERAS_3)),
    "inside a wrapper, of Keras 2": wrapped(lambda_layer(KERAS_2)),
    "activation": {
        "module": "keras.layers",
        "class_name": "Activation",
        "config": {"name": "a", "activation": KERAS_3},
        "registered_name": None,
    },
    "SavedModel": {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"name": "a", "filepath": "/nowhere"},
        "registered_name": None,
    },
    "pickle": {
        "module": "keras.layers",
        "class_name": "TorchModuleWrapper",
        "config": {"name": "a", "module": CODE},
        "registered_name": None,
    },
}


def crafted(path: Path, config: dict, training: dict | None = None) -> Path:
    """A model file of the path's format with this configuration."""
    save_model(small(), {}, path)
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = json.dumps(config)
            if training is not None:
                del file.attrs["distributed_config"]
                file.attrs["training_config"] = json.dumps(training)
        return path
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("extension", ["keras", "h5"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_code_in_a_file_is_refused(tmp_path: Path, extension: str, attack: dict) -> None:
    path = crafted(tmp_path / f"a.{extension}", model_with(attack))
    with pytest.raises(ValueError, match=r"without code inside.*`safe_mode=False`.*a\."):
        load_model(path)


def test_code_in_the_compile_configuration_is_refused(tmp_path: Path) -> None:
    safe = model_with({"class_name": "Dense", "config": {"units": 1, "name": "d"}})
    training = {"loss": KERAS_3, "optimizer_config": {"class_name": "SGD", "config": {}}}
    with pytest.raises(ValueError, match="'__lambda__'"):
        load_model(crafted(tmp_path / "a.h5", safe, training))


@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_code_is_refused_even_where_keras_was_told_to_allow_it(
    tmp_path: Path, extension: str
) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x)])
    save_model(model, {}, tmp_path / f"a.{extension}")

    def careless() -> None:
        keras.config.enable_unsafe_deserialization()
        load_model(tmp_path / f"a.{extension}")

    # Keras remembers it for a thread, for ever; so in a thread that ends.
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="`safe_mode=False`"):
        pool.submit(careless).result()


@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_trusted_file_with_a_lambda_loads(tmp_path: Path, extension: str) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x)])
    save_model(model, {}, tmp_path / f"a.{extension}")
    loaded = load_model(tmp_path / f"a.{extension}", safe_mode=False).model
    np.testing.assert_array_equal(loaded(np.ones((1, 3))), [[2, 2, 2]])


@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_a_lambda_layer_of_a_named_function_is_accepted(tmp_path: Path, extension: str) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(twice)])
    save_model(model, {}, tmp_path / f"a.{extension}")
    loaded = load_model(tmp_path / f"a.{extension}", custom_objects={"twice": twice}).model
    np.testing.assert_array_equal(loaded(np.ones((1, 3))), [[2, 2, 2]])


def twice(x):
    return 2 * x


def test_a_list_of_sizes_is_accepted() -> None:
    refuse_code(lambda_layer("relu", output_shape=[None, 3]), "a.h5")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.config", "enable_unsafe_deserialization"),
        ("os", "system"),
        ("keras.utils", "get_file"),
    ],
)
def test_a_function_that_is_not_part_of_a_model_is_not_called(
    tmp_path: Path, module: str, name: str
) -> None:
    function = {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }
    path = crafted(tmp_path / "a.keras", model_with(lambda_layer(function)))
    with pytest.raises((TypeError, ValueError)):
        load_model(path)


def documented(path: Path, document: dict) -> Path:
    """A `.keras` file with this document of kspark's."""
    save_model(small(), {}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["kspark.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_pickled_server_state_is_refused(tmp_path: Path) -> None:
    document = {"format": 1, "config": {}, "server_state": ["bad"]}
    path = documented(tmp_path / "a.keras", document)
    member = "kspark/server_state/0.npy"
    with zipfile.ZipFile(path, "a") as archive, archive.open(member, "w") as file:
        np.lib.format.write_array(file, np.array([print]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_model(path)


@pytest.mark.parametrize("class_name", ["builtins.print", "ElephasEstimator", ["SparkModel"], None])
def test_a_file_cannot_choose_the_class_that_is_loaded(tmp_path: Path, class_name: object) -> None:
    document = {"format": 1, "config": {}, "server_state": [], "class_name": class_name}
    with pytest.raises(ValueError, match="file of one of SparkModel, .*this one holds"):
        load_model(documented(tmp_path / "a.keras", document))


@pytest.mark.parametrize("trick", ["link", "storage", "virtual"])
def test_h5_array_that_lies_in_another_file_is_refused(tmp_path: Path, trick: str) -> None:
    path, other = tmp_path / "a.h5", tmp_path / "secret.h5"
    save_model(small(), {}, path, server_state={"m": np.zeros(4)})
    with h5py.File(other, "w") as file:
        file["m"] = np.ones(4)
    with h5py.File(path, "a") as file:
        group = file["kspark_server_state"]
        del group["0"]
        if trick == "link":
            group["0"] = h5py.ExternalLink(str(other), "m")
        elif trick == "storage":
            group.create_dataset("0", (4,), "f8", external=[(str(other), 0, 32)])
        else:
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(other), "m", (4,))
            group.create_virtual_dataset("0", layout)
    with pytest.raises(ValueError, match="lies in another file"):
        load_model(path)


def elephas_file(path: Path, class_name: str, **config: object) -> str:
    """A file as Elephas' stages write it."""
    content = {"class_name": class_name, "config": config}
    with h5py.File(path, "w") as file:
        file.attrs["distributed_config"] = json.dumps(content).encode()
    return str(path)


@pytest.mark.parametrize("load", [load_ml_estimator, load_ml_transformer])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_code_in_a_file_of_elephas_is_refused(
    tmp_path: Path, attack: dict, load: Callable[[str], object]
) -> None:
    name = {load_ml_estimator: "ElephasEstimator", load_ml_transformer: "ElephasTransformer"}[load]
    text = json.dumps(model_with(attack))
    path = elephas_file(tmp_path / "a.h5", name, keras_model_config=text, weights=[[1.0]])
    with pytest.raises(ValueError, match="without code inside"):
        load(path)


def test_code_in_an_optimizer_of_elephas_is_refused(tmp_path: Path) -> None:
    optimizer = {"class_name": "SGD", "config": {"learning_rate": KERAS_3}}
    path = elephas_file(tmp_path / "a.h5", "ElephasEstimator", optimizer_config=optimizer)
    with pytest.raises(ValueError, match="without code inside"):
        load_ml_estimator(path)
    loaded = ElephasEstimator.read().safeMode(False).load(path)
    assert loaded.get_optimizer_config() == optimizer


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_code_in_a_dictionary_is_refused(attack: dict) -> None:
    with pytest.raises(ValueError, match="without code inside"):
        dict_to_model({"model": json.dumps(model_with(attack)), "weights": []})
