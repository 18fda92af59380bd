"""Artefacts of kspark 0.1 on Spark: models train on, stages have their Params and predict.

`tests/fixtures/v0.1/generate.py` wrote them and what to expect of them.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel

from kspark import load_spark_model
from kspark.ml import (
    ElephasEstimator,
    ElephasTransformer,
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressionModel,
    KerasRegressor,
    load_ml_estimator,
    load_ml_transformer,
)

SAVED = Path(__file__).resolve().parents[2] / "fixtures" / "v0.1"
SPARK_MODELS = ("spark_model.keras", "spark_model.h5", "mllib_model.keras", "mllib_model.h5")
STAGES = {
    "keras_classifier": KerasClassifier,
    "keras_classifier_model": KerasClassificationModel,
    "keras_estimator": KerasEstimator,
    "keras_estimator_model": KerasModel,
    "keras_regressor": KerasRegressor,
    "keras_regressor_model": KerasRegressionModel,
    "pipeline": Pipeline,
    "pipeline_model": PipelineModel,
    "elephas_estimator": ElephasEstimator,
    "elephas_estimator_model": ElephasTransformer,
}
FITTED = [name for name in STAGES if name.endswith("_model")]


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


@pytest.fixture(scope="module")
def rows(spark, generator):
    return generator["frame"](spark).cache()


def below(arrays, name):
    return {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")}


def close(found, expected, atol):
    assert set(found) == set(expected)
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=atol, err_msg=key)


@pytest.mark.parametrize("name", SPARK_MODELS)
def test_spark_model_trains_on_as_if_it_had_not_been_saved(spark, generator, arrays, name):
    spark_model = load_spark_model(str(SAVED / name))
    generator["fit"](spark, spark_model, 2, 3)
    after = spark_model.master_network.get_weights()
    found = {str(i): weight for i, weight in enumerate(after)}
    close(found, below(arrays, f"{name}/after"), 1e-5)


@pytest.mark.parametrize("name", STAGES)
def test_stage_has_the_saved_class_and_params(spark, generator, settings, name):
    stage = STAGES[name].load(str(SAVED / name))
    assert type(stage) is STAGES[name]
    saved = {part["uid"]: part for part in settings[name]}
    found = {part.uid: generator["settings_of"](part) for part in generator["parts_of"](stage)}
    assert list(found) == list(saved)
    for uid, part in saved.items():
        assert found[uid]["class"] == part["class"]
        # A newer Spark may have more Params than that of the artefact.
        known = {param: found[uid]["params"].get(param) for param in part["params"]}
        assert known == part["params"]


@pytest.mark.parametrize("name", FITTED)
def test_fitted_stage_predicts_the_saved_values(generator, arrays, rows, name):
    stage = STAGES[name].load(str(SAVED / name))
    close(generator["transformed"](stage, rows), below(arrays, name), 1e-6)


def test_transformer_file_of_elephas_stage_predicts_the_saved_values(generator, arrays, rows):
    name = "elephas_estimator_model"
    stage = load_ml_transformer(str(SAVED / f"{name}.h5"))
    close(generator["transformed"](stage, rows), below(arrays, name), 1e-6)


def test_estimator_file_of_elephas_stage_trains(generator, rows):
    stage = load_ml_estimator(str(SAVED / "elephas_estimator.h5"))
    found = generator["transformed"](stage.fit(rows), rows)
    np.testing.assert_allclose(found["elephas"].sum(axis=1), 1.0, atol=1e-5)


def test_loaded_pipeline_fits_as_the_saved_one(generator, arrays, rows):
    fitted = Pipeline.load(str(SAVED / "pipeline")).fit(rows)
    close(generator["transformed"](fitted, rows), below(arrays, "pipeline_model"), 1e-5)
