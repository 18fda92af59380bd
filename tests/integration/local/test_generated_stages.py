"""The `fit` of a stage trains any model as `keras.Model.fit` does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from kspark.ml import KerasEstimator


def grammar():
    """Import the grammar, a module of a user's project that workers do not have."""
    if "model_grammar" not in sys.modules:
        path = Path(__file__).with_name("model_grammar.py")
        spec = importlib.util.spec_from_file_location("model_grammar", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["model_grammar"] = module
        spec.loader.exec_module(module)
    return sys.modules["model_grammar"]


@pytest.fixture
def by_stage(spark):
    parts = grammar()

    def fit(made):
        rows = [(x.tolist(), y.tolist()) for x, y in zip(made.x, made.y, strict=True)]
        frame = spark.createDataFrame(rows, ["features", "label"]).coalesce(1)
        stage = KerasEstimator(made.model, batchSize=parts.BATCH, numWorkers=1, **parts.FIT)
        fitted = stage.fit(frame)
        return fitted.kerasModel, fitted.history

    return fit


@pytest.mark.timeout(600)
def test_thirty_generated_models_train_as_in_keras(by_stage):
    grammar().check_trains_as_in_keras(by_stage, range(30))


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(30, 330, 30))
def test_further_generated_models_train_as_in_keras(first, by_stage):
    grammar().check_trains_as_in_keras(by_stage, range(first, first + 30))
