"""`SparkModel.fit` with one worker, a stage's `fit` and `keras.Model.fit` train any model alike."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from kspark import SparkModel
from kspark.ml import KerasEstimator

FIT = {"epochs": 2, "shuffle": False, "verbose": 0}
BATCH = 8


def grammar():
    """Import the grammar, a module of a user's project that workers do not have."""
    if "model_grammar" not in sys.modules:
        path = Path(__file__).with_name("model_grammar.py")
        spec = importlib.util.spec_from_file_location("model_grammar", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["model_grammar"] = module
        spec.loader.exec_module(module)
    return sys.modules["model_grammar"]


def sentence(seed):
    return grammar().sentence(seed)


def by_keras(seed, spark):
    made = sentence(seed)
    history = made.model.fit(made.x, made.y, batch_size=BATCH, **FIT)
    return made.model, history.history


def by_spark_model(seed, spark):
    made = sentence(seed)
    history = SparkModel(made.model, num_workers=1).fit(made.x, made.y, batch_size=BATCH, **FIT)
    return made.model, history.history


def by_stage(seed, spark):
    made = sentence(seed)
    rows = [(x.tolist(), y.tolist()) for x, y in zip(made.x, made.y, strict=True)]
    frame = spark.createDataFrame(rows, ["features", "label"]).coalesce(1)
    fitted = KerasEstimator(made.model, batchSize=BATCH, numWorkers=1, **FIT).fit(frame)
    return fitted.kerasModel, fitted.history


def check_equal(seed, spark):
    """Train the model of a seed in three ways.

    Returns:
        List of the errors of kspark's ways; empty unless the model is refused.
    """
    expected, expected_history = by_keras(seed, spark)
    refusals = []
    for way in (by_spark_model, by_stage):
        try:
            model, history = way(seed, spark)
        except (ValueError, TypeError) as error:
            refusals.append(str(error))
            continue
        for ours, theirs in zip(model.variables, expected.variables, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6, err_msg=theirs.path)
        assert history.keys() == expected_history.keys()
        for name, values in history.items():
            np.testing.assert_allclose(values, expected_history[name], rtol=1e-4, atol=1e-6)
    assert len(refusals) in (0, 2), refusals
    return refusals


def check_all_equal(seeds, spark):
    refused = {}
    for seed in seeds:
        with contextlib.ExitStack() as stack:
            stack.callback(print, f"model {seed}: {sentence(seed).words}")  # shown if it fails
            errors = check_equal(seed, spark)
        if errors:
            refused[seed] = errors[0]
    assert len(refused) <= 0.05 * len(seeds), refused


@pytest.mark.timeout(600)
def test_thirty_generated_models_train_as_in_keras(spark):
    check_all_equal(range(30), spark)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(30, 330, 30))
def test_further_generated_models_train_as_in_keras(first, spark):
    check_all_equal(range(first, first + 30), spark)
