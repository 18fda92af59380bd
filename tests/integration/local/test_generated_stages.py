"""The `fit` of a stage trains any model as `keras.Model.fit` does."""

from __future__ import annotations

import pytest

from kspark.ml import KerasEstimator


@pytest.fixture
def by_stage(spark, grammar):
    def fit(made):
        rows = [(x.tolist(), y.tolist()) for x, y in zip(made.x, made.y, strict=True)]
        frame = spark.createDataFrame(rows, ["features", "label"]).coalesce(1)
        stage = KerasEstimator(made.model, batchSize=grammar.BATCH, numWorkers=1, **grammar.FIT)
        fitted = stage.fit(frame)
        return fitted.kerasModel, fitted.history

    return fit


@pytest.mark.timeout(600)
def test_thirty_generated_models_train_as_in_keras(by_stage, grammar):
    grammar.check_trains_as_in_keras(by_stage, range(30))


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(30, 330, 30))
def test_further_generated_models_train_as_in_keras(first, by_stage, grammar):
    grammar.check_trains_as_in_keras(by_stage, range(first, first + 30))
