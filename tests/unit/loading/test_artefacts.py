"""Files that kspark 0.1 wrote, read without Spark: settings, weights, state and predictions.

`tests/fixtures/v0.1/generate.py` wrote them and what to expect of them.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from kspark import SparkModel, load_spark_model
from kspark.ml import ModelType, load_ml_estimator, load_ml_transformer
from kspark.mllib import SparkMLlibModel

SAVED = Path(__file__).resolve().parents[2] / "fixtures" / "v0.1"
CLASSES = {"SparkModel": SparkModel, "SparkMLlibModel": SparkMLlibModel}
SPARK_MODELS = ("spark_model.keras", "spark_model.h5", "mllib_model.keras", "mllib_model.h5")


@pytest.fixture(scope="module")
def generator():
    return runpy.run_path(str(SAVED / "generate.py"))


@pytest.fixture(scope="module")
def arrays():
    with np.load(SAVED / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def settings():
    return json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))


def close(found, arrays, name):
    """Compare arrays with all that are expected below a name."""
    expected = {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(name)}
    expected = {k: v for k, v in expected.items() if not k.startswith("after/")}
    assert set(found) == set(expected)
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", SPARK_MODELS)
def test_spark_model_has_the_saved_settings(settings, name):
    spark_model = load_spark_model(str(SAVED / name))
    assert type(spark_model) is CLASSES[settings[name]["class"]]
    later = {"road": "auto", "step_timeout": None}  # Defaults of settings that were added later.
    assert json.loads(json.dumps(spark_model.get_config())) == settings[name]["config"] | later


@pytest.mark.parametrize("name", SPARK_MODELS)
def test_spark_model_has_the_saved_weights_optimizer_and_predictions(generator, arrays, name):
    model = load_spark_model(str(SAVED / name)).master_network
    close(generator["arrays_of"](model), arrays, name)


def test_estimator_file_of_elephas_stage_has_the_saved_params_and_weights(generator, settings):
    estimator = load_ml_estimator(str(SAVED / "elephas_estimator.h5"))
    saved = settings["elephas_estimator"][0]["params"]
    found = generator["settings_of"](estimator)["params"]
    assert json.loads(found.pop("keras_model_config")) == json.loads(
        saved.pop("keras_model_config")
    )
    assert found == saved


def test_transformer_file_of_elephas_stage_predicts_the_saved_values(generator, arrays, settings):
    transformer = load_ml_transformer(str(SAVED / "elephas_estimator_model.h5"))
    saved = settings["elephas_estimator_model"][0]["params"]
    found = generator["settings_of"](transformer)["params"]
    assert {name: found[name] for name in ("outputCol", "featuresCol", "labelCol")} == {
        name: saved[name] for name in ("outputCol", "featuresCol", "labelCol")
    }
    assert transformer.model_type is ModelType.CLASSIFICATION
    assert len(transformer.history) == 1
    model = transformer.get_model()
    model.set_weights(transformer.weights)
    predictions = model.predict(generator["X"], verbose=0)
    expected = arrays["elephas_estimator_model/elephas"]
    np.testing.assert_allclose(predictions, expected, rtol=0, atol=1e-6)
