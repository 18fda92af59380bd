"""`SparkModel.fit` with one worker trains any model as `keras.Model.fit` does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from kspark import SparkModel


def grammar():
    """Import the grammar, a module of a user's project that workers do not have."""
    if "model_grammar" not in sys.modules:
        path = Path(__file__).with_name("model_grammar.py")
        spec = importlib.util.spec_from_file_location("model_grammar", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["model_grammar"] = module
        spec.loader.exec_module(module)
    return sys.modules["model_grammar"]


def by_spark_model(made):
    parts = grammar()
    spark_model = SparkModel(made.model, num_workers=1)
    history = spark_model.fit(made.x, made.y, batch_size=parts.BATCH, **parts.FIT)
    return made.model, history.history


@pytest.mark.timeout(600)
def test_thirty_generated_models_train_as_in_keras(spark):
    grammar().check_trains_as_in_keras(by_spark_model, range(30))


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(30, 330, 30))
def test_further_generated_models_train_as_in_keras(first, spark):
    grammar().check_trains_as_in_keras(by_spark_model, range(first, first + 30))
