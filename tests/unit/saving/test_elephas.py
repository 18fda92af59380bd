"""Files that Elephas wrote load, and Elephas' readers find what they look for.

The files in `tests/fixtures/elephas` were written by Elephas 7.3 with Keras 3 (`v7`)
and by Elephas 6.1 with Keras 2 (`v6`); its `generate.py` says how.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kspark.saving import load_model

FIXTURES = Path(__file__).parents[2] / "fixtures" / "elephas"
CONFIGS = {
    "v7_sync": ("SparkModel", {"num_workers": 2, "batch_size": 16}),
    "v7_async": (
        "AsynchronousSparkModel",
        {
            "num_workers": None,
            "batch_size": 32,
            "parameter_server_mode": "socket",
            "mode": "hogwild",
            "frequency": "batch",
        },
    ),
    "v7_mllib": ("SparkMLlibModel", {"num_workers": 3, "batch_size": 32}),
    "v6_sync": (
        "SparkModel",
        {
            "parameter_server_mode": "http",
            "mode": "synchronous",
            "frequency": "epoch",
            "num_workers": 2,
            "batch_size": 32,
        },
    ),
    "v6_async": (
        "SparkModel",
        {
            "parameter_server_mode": "http",
            "mode": "asynchronous",
            "frequency": "batch",
            "num_workers": None,
            "batch_size": 64,
        },
    ),
    "v6_mllib": (
        "SparkMLlibModel",
        {
            "parameter_server_mode": "http",
            "mode": "synchronous",
            "frequency": "epoch",
            "num_workers": 3,
            "batch_size": 32,
        },
    ),
}
OPTIMIZERS = {
    "v7_sync": ("Adam", {"learning_rate": 0.01, "beta_2": 0.999}),
    "v7_async": ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    "v7_mllib": ("RMSprop", {"learning_rate": 0.001}),
    "v6_sync": ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    "v6_async": ("Adam", {"learning_rate": 0.01, "beta_2": 0.999}),
    "v6_mllib": ("Adam", {"learning_rate": 0.01, "beta_2": 0.999}),
}
everything = pytest.mark.parametrize("name", CONFIGS)


def expected(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The input, and what the model answered in Elephas' process."""
    with np.load(FIXTURES / f"expected_{name[:2]}.npz") as arrays:
        return arrays["x"], arrays[name]


@everything
def test_config_and_class_name_are_restored(name: str) -> None:
    saved = load_model(FIXTURES / f"{name}.h5")
    assert (saved.class_name, saved.config) == CONFIGS[name]
    assert saved.server_state == {}


@everything
def test_the_model_predicts_as_in_elephas(name: str) -> None:
    x, answers = expected(name)
    model = load_model(FIXTURES / f"{name}.h5").model
    np.testing.assert_allclose(model.predict(x, verbose=0), answers, atol=1e-6)


@everything
def test_optimizer_keeps_its_settings(name: str) -> None:
    kind, settings = OPTIMIZERS[name]
    optimizer = load_model(FIXTURES / f"{name}.h5").model.optimizer
    assert type(optimizer).__name__ == kind
    config = optimizer.get_config()
    assert {key: config[key] for key in settings} == pytest.approx(settings)


@everything
def test_loss_and_metrics_work(name: str) -> None:
    x, answers = expected(name)
    model = load_model(FIXTURES / f"{name}.h5").model
    if name.endswith("mllib"):
        y = np.zeros((8, 1), "float32")
        want = {"loss": np.mean(answers**2), "mae": np.mean(np.abs(answers))}
    else:
        labels = np.arange(8) % 2
        y = np.eye(2)[labels]
        want = {
            "loss": -np.mean(np.log(answers[np.arange(8), labels])),
            "accuracy": np.mean(answers.argmax(axis=1) == labels),
        }
    logs = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert logs == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("name", ["v7_sync", "v7_async", "v7_mllib"])
def test_optimizer_state_of_keras_3_is_restored(name: str) -> None:
    variables = load_model(FIXTURES / f"{name}.h5").model.optimizer.variables
    with h5py.File(FIXTURES / f"{name}.h5") as file:
        group = file["optimizer_weights"]
        arrays = [group[key][()] for key in group.attrs["weight_names"]]
    assert int(arrays[0]) == 6  # batches that the model was trained for
    assert len(variables) == len(arrays)
    for variable, array in zip(variables, arrays, strict=True):
        np.testing.assert_array_equal(variable, array)


@pytest.mark.parametrize("name", ["v6_sync", "v6_async", "v6_mllib"])
def test_optimizer_state_of_keras_2_starts_afresh(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="kspark"):
        model = load_model(FIXTURES / f"{name}.h5").model
    assert (
        "(Keras 2.19.0) does not fit this Keras version. The optimizer starts without it"
        in caplog.text
    )
    assert int(model.optimizer.iterations) == 0


def test_an_incomplete_optimizer_state_starts_afresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(FIXTURES / "v7_sync.h5", tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        attributes = file["optimizer_weights"].attrs
        attributes["weight_names"] = attributes["weight_names"][:4]
    with caplog.at_level(logging.WARNING, logger="kspark"):
        model = load_model(tmp_path / "a.h5").model
    assert "starts without it" in caplog.text
    assert int(model.optimizer.iterations) == 0


def test_a_list_of_optimizer_variables_in_pieces_is_joined(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "v7_sync.h5", tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        attributes = file["optimizer_weights"].attrs
        names = attributes.pop("weight_names")
        attributes["weight_names0"], attributes["weight_names1"] = names[:3], names[3:]
    assert int(load_model(tmp_path / "a.h5").model.optimizer.iterations) == 6


def test_attributes_of_fixed_length_are_read_as_text(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "v7_sync.h5", tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        for name in ("distributed_config", "training_config"):
            file.attrs[name] = np.bytes_(file.attrs[name])
    saved = load_model(tmp_path / "a.h5")
    assert saved.config == CONFIGS["v7_sync"][1]
    assert saved.model.compiled


def test_an_hdf5_file_with_the_keras_extension_loads(tmp_path: Path) -> None:
    # Keras 2 wrote HDF5 to `.keras` names, and Elephas added its attribute to that.
    shutil.copy(FIXTURES / "v6_sync.h5", tmp_path / "a.keras")
    saved = load_model(tmp_path / "a.keras")
    assert (saved.class_name, saved.config) == CONFIGS["v6_sync"]


def test_options_that_elephas_ignored_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = edited(tmp_path, config={"batch_size": 8, "mode": "hogwild", "epoch": 3})
    with caplog.at_level(logging.WARNING, logger="kspark"):
        saved = load_model(path)
    assert saved.config == {"batch_size": 8, "mode": "hogwild"}
    assert "Ignored ['epoch']" in caplog.text


@pytest.mark.parametrize("class_name", ["ElephasEstimator", "ElephasTransformer", None])
def test_file_of_another_class_is_refused(tmp_path: Path, class_name: str | None) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        content = {"class_name": class_name, "config": {"epochs": 2}}
        file.attrs["distributed_config"] = json.dumps(content).encode()
    with pytest.raises(ValueError, match=f"this one holds {class_name!r}"):
        load_model(path)


def test_file_without_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ValueError, match="`path` must be a file of a whole Keras model"):
        load_model(path)


TRAINING = {
    "loss": "mse",
    "metrics": ["mae"],
    "loss_weights": None,
    "optimizer_config": {"class_name": "SGD", "config": {"learning_rate": 0.5}},
}


def test_decay_of_keras_2_becomes_a_schedule(tmp_path: Path) -> None:
    config = {"class_name": "SGD", "config": {"name": "SGD", "lr": 0.5, "decay": 0.25}}
    model = load_model(edited(tmp_path, training={**TRAINING, "optimizer_config": config})).model
    schedule = model.optimizer.get_config()["learning_rate"]
    schedule = keras.optimizers.schedules.deserialize(schedule)
    # lr / (1 + decay * iterations)
    assert [float(schedule(i)) for i in (0, 4)] == [0.5, 0.25]


def test_a_schedule_of_keras_2_stays_a_schedule(tmp_path: Path) -> None:
    rate = {
        "class_name": "ExponentialDecay",
        "config": {"initial_learning_rate": 0.5, "decay_steps": 2, "decay_rate": 0.5},
    }
    config = {"class_name": "Adam", "config": {"learning_rate": rate}}
    model = load_model(edited(tmp_path, training={**TRAINING, "optimizer_config": config})).model
    assert float(model.optimizer.learning_rate) == 0.5
    model.optimizer.iterations.assign(2)
    assert float(model.optimizer.learning_rate) == 0.25


def test_loss_object_of_keras_2_keeps_its_settings(tmp_path: Path) -> None:
    loss = {
        "class_name": "CategoricalCrossentropy",
        "config": {"reduction": "auto", "name": "x", "from_logits": True, "label_smoothing": 0.5},
    }
    model = load_model(edited(tmp_path, training={**TRAINING, "loss": loss})).model
    want = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.5)
    y, y_pred = np.eye(2), np.array([[1.0, 2.0], [0.5, 0.0]])
    np.testing.assert_allclose(model.loss(y, y_pred), want(y, y_pred))


def test_losses_and_metrics_by_output_are_kept(tmp_path: Path) -> None:
    training = {**TRAINING, "loss": {"classes": "mse"}, "metrics": {"classes": ["mae", "acc"]}}
    model = load_model(edited(tmp_path, training=training)).model
    x, answers = expected("v6_sync")
    logs = model.evaluate(x, np.zeros((8, 2)), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(np.mean(answers**2))
    assert logs["mae"] == pytest.approx(np.mean(np.abs(answers)))


def test_metric_objects_of_keras_2_are_restored(tmp_path: Path) -> None:
    metrics = [
        {"class_name": "MeanMetricWrapper", "config": {"name": "mine", "fn": "above"}},
        {"class_name": "Precision", "config": {"name": "precision", "thresholds": 0.25}},
        "above",
    ]
    path = edited(tmp_path, training={**TRAINING, "metrics": metrics})
    model = load_model(path, custom_objects={"above": above}).model
    x, answers = expected("v6_sync")
    logs = model.evaluate(x, np.ones((8, 2)), verbose=0, return_dict=True)
    assert logs["mine"] == logs["above"] == pytest.approx(np.mean(answers > 0.5))
    assert logs["precision"] == 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "unheard"},
        {"metrics": ["unheard"]},
        {
            "metrics": [
                {"class_name": "MeanMetricWrapper", "config": {"name": "u", "fn": "unheard"}}
            ]
        },
        {"optimizer_config": {"class_name": "unheard", "config": {}}},
    ],
    ids=["loss", "metric", "metric function", "optimizer"],
)
def test_unknown_names_are_refused_at_once(tmp_path: Path, change: dict) -> None:
    with pytest.raises(ValueError, match="unheard"):
        load_model(edited(tmp_path, training={**TRAINING, **change}))


def test_a_custom_optimizer_needs_custom_objects(tmp_path: Path) -> None:
    config = {"class_name": "Custom>Slow", "config": {"learning_rate": 0.5}}
    path = edited(tmp_path, training={**TRAINING, "optimizer_config": config})
    with pytest.raises(ValueError, match=r"`custom_objects` must .*'Custom>Slow'"):
        load_model(path)
    assert isinstance(load_model(path, custom_objects={"Custom>Slow": Slow}).model.optimizer, Slow)


class Slow(keras.optimizers.SGD):
    """An optimizer of the user's own."""


def above(y_true, y_pred):
    return keras.ops.mean(keras.ops.cast(y_pred > 0.5, "float32"), axis=-1)


def edited(tmp_path: Path, config: dict | None = None, training: dict | None = None) -> Path:
    """A file of Elephas 6 with another configuration."""
    path = tmp_path / "edited.h5"
    shutil.copy(FIXTURES / "v6_sync.h5", path)
    with h5py.File(path, "a") as file:
        if config is not None:
            content = {"class_name": "SparkModel", "config": config}
            file.attrs["distributed_config"] = json.dumps(content).encode()
        if training is not None:
            file.attrs["training_config"] = json.dumps(training).encode()
    return path
