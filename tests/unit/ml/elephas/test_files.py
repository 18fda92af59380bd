"""Where Elephas stages are saved, and what is restored from there; without Spark."""

import json

import h5py
import keras
import numpy as np
import pytest

from kspark.ml import (
    ElephasEstimator,
    ElephasTransformer,
    ModelType,
    load_ml_estimator,
    load_ml_transformer,
)
from kspark.ml.elephas import files as files
from kspark.ml.elephas.stage import ElephasStage

# The Params of Elephas' classes: they are made of a file's configuration as it is.
COMMON = {"keras_model_config", "featuresCol", "labelCol", "outputCol", "custom_objects"}
OF_TRANSFORMERS = COMMON | {"inference_batch_size", "weights", "model_type", "history"}
OF_ESTIMATORS = COMMON | {
    *("optimizer_config", "mode", "frequency", "nb_classes", "categorical", "epochs"),
    *("batch_size", "verbose", "validation_split", "num_workers", "metrics", "loss"),
}


def transformer(model, **params):
    return ElephasTransformer(
        keras_model_config=model.to_json(), weights=model.get_weights(), **params
    )


def same(arrays, others):
    for a, b in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(a, b)


def content_of(path):
    with h5py.File(path) as file:
        return json.loads(file.attrs["distributed_config"])


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "A.H5"])
def test_a_name_with_an_hdf5_extension_is_saved_as_a_file(tmp_path, make, name):
    path = tmp_path / name
    ElephasEstimator(keras_model_config=make().to_json(), epochs=3).save(path)
    assert h5py.is_hdf5(path)
    assert load_ml_estimator(path).get_epochs() == 3
    assert ElephasEstimator.load(str(path)).get_epochs() == 3


@pytest.mark.parametrize("name", ["search/estimator", "epm_stages0", "a.h5/bestModel", "a.model"])
def test_all_other_names_are_saved_as_spark_directories(monkeypatch, name):
    class Writer:
        def save(self, path):
            saved.append(path)

    saved = []
    monkeypatch.setattr(ElephasStage, "write", lambda stage: Writer())
    for stage in (ElephasEstimator(), ElephasTransformer()):
        stage.save(name)
    assert saved == [name, name]


def test_files_of_elephas_are_read_under_any_name(tmp_path):
    config = {"epochs": 3, "keras_model_config": "{}"}
    for name in ("estimator", "estimator.keras"):
        with h5py.File(tmp_path / name, "w") as file:
            content = {"class_name": "ElephasEstimator", "config": config}
            file.attrs["distributed_config"] = json.dumps(content).encode()
        assert load_ml_estimator(str(tmp_path / name)).get_epochs() == 3


def test_a_spark_directory_is_read_under_any_name(tmp_path):
    """`write().save` makes a directory of any name, unlike `save`."""
    (tmp_path / "stage.h5").mkdir()
    assert not files.is_file(str(tmp_path / "stage.h5"))
    assert files.is_file(str(tmp_path / "other.h5"))


def test_files_have_only_keys_that_elephas_knows(tmp_path, make):
    path = str(tmp_path / "a.h5")
    ElephasEstimator(make(), output_type="class", from_logits=True).save(path)
    assert set(content_of(path)["config"]) <= OF_ESTIMATORS
    loaded = load_ml_estimator(path)
    assert (loaded.get_output_type(), loaded.get_from_logits()) == ("class", True)
    transformer(make(), output_type="class", from_logits=True).save(path)
    assert set(content_of(path)["config"]) <= OF_TRANSFORMERS
    loaded = load_ml_transformer(path)
    assert (loaded.get_output_type(), loaded.get_from_logits()) == ("class", True)


class Shifted(keras.layers.Layer):
    def call(self, x):
        return x + 1.0


@pytest.fixture
def shifted(monkeypatch):
    """A model with a layer that no module has."""
    monkeypatch.setattr(Shifted, "__module__", "elsewhere")
    return keras.Sequential([keras.Input((2,)), Shifted(), keras.layers.Dense(1)])


def test_custom_objects_are_restored_from_a_transformer_file(tmp_path, shifted):
    path = str(tmp_path / "a.h5")
    transformer(shifted, custom_objects={"Shifted": Shifted}).save(path)
    readers = [
        load_ml_transformer(path, {"Shifted": Shifted}),
        ElephasTransformer.read().customObjects({"Shifted": Shifted}).load(path),
    ]
    for loaded in readers:
        assert loaded.get_custom_objects() == {"Shifted": Shifted}
        assert type(loaded.get_model().layers[0]) is Shifted
        same(loaded.weights, shifted.get_weights())
        x = np.array([[1.0, -2.0]])
        expected = shifted.predict(x, verbose=0)
        np.testing.assert_array_equal(loaded._model().model.predict(x, verbose=0), expected)
    with pytest.raises(ValueError, match="`custom_objects` must be a dictionary with 'Shifted'"):
        load_ml_transformer(path).get_model()


def test_custom_objects_are_restored_from_an_estimator_file(tmp_path, shifted):
    path = str(tmp_path / "a.h5")
    ElephasEstimator(keras_model_config=shifted.to_json()).save(path)
    loaded = load_ml_estimator(path, {"Shifted": Shifted})
    assert type(loaded.get_model().layers[0]) is Shifted


def test_an_estimator_file_restores_all_params(estimator, tmp_path):
    path = str(tmp_path / "estimator.h5")
    estimator.save(path)
    loaded = load_ml_estimator(path)
    before, after = (
        {p.name: v for p, v in stage.extractParamMap().items() if p.name != "custom_objects"}
        for stage in (estimator, loaded)
    )
    assert after == before
    with h5py.File(path) as file:
        content = json.loads(file.attrs["distributed_config"])
    assert content["class_name"] == "ElephasEstimator"
    assert set(estimator.get_config()) <= set(content["config"])


@pytest.mark.parametrize("units", [3, 3000])
def test_a_transformer_file_restores_all_params(make, tmp_path, units):
    model = make(units)
    stage = ElephasTransformer(
        keras_model_config=model.to_json(),
        weights=model.get_weights(),
        model_type=ModelType.CLASSIFICATION,
        history=[{"loss": [0.5]}],
        outputCol="out",
        inference_batch_size=7,
        output_type="class",
    )
    path = str(tmp_path / "transformer.h5")
    stage.save(path)
    loaded = load_ml_transformer(path)
    for a, b in zip(loaded.weights, model.get_weights(), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert (loaded.model_type, loaded.history) == (ModelType.CLASSIFICATION, [{"loss": [0.5]}])
    assert (loaded.get_inference_batch_size(), loaded.get_output_type()) == (7, "class")
    assert (loaded.getOutputCol(), loaded.get_keras_model_config()) == ("out", model.to_json())


def test_files_in_the_format_of_elephas_are_read(make, tmp_path):
    """As Elephas writes them: weights as nested lists, a model type as text."""
    model = make(1, None, "mse")
    config = {
        "keras_model_config": model.to_json(),
        "labelCol": "y",
        "featuresCol": "x",
        "outputCol": "p",
        "weights": [w.tolist() for w in model.get_weights()],
        "model_type": {"__enum__": "ModelType.REGRESSION"},
    }
    path = str(tmp_path / "elephas.h5")
    with h5py.File(path, "w") as file:
        content = {"class_name": "ElephasTransformer", "config": config}
        file.attrs["distributed_config"] = json.dumps(content).encode()
    loaded = load_ml_transformer(path)
    assert (loaded.model_type, loaded.getFeaturesCol()) == (ModelType.REGRESSION, "x")
    for a, b in zip(loaded.weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_elephas_can_read_a_small_transformer_file(make, tmp_path):
    model = make(1, None, "mse")
    path = str(tmp_path / "small.h5")
    ElephasTransformer(
        keras_model_config=model.to_json(),
        weights=model.get_weights(),
        model_type=ModelType.REGRESSION,
    ).save(path)
    with h5py.File(path) as file:
        config = json.loads(file.attrs["distributed_config"])["config"]
    assert config["model_type"] == {"__enum__": "ModelType.REGRESSION"}
    np.testing.assert_allclose(config["weights"][0], model.get_weights()[0], rtol=1e-6)


def test_other_files_are_refused(estimator, tmp_path):
    path = str(tmp_path / "estimator.h5")
    estimator.save(path)
    with pytest.raises(ValueError, match="`file_name` must be a file of an ElephasTransformer"):
        load_ml_transformer(path)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(ValueError, match="`file_name` must be a file of an ElephasEstimator"):
        load_ml_estimator(str(tmp_path / "text.h5"))
    with pytest.raises(FileNotFoundError):
        load_ml_estimator(str(tmp_path / "none.h5"))
