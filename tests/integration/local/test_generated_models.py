"""`SparkModel.fit` with one worker trains any model as `keras.Model.fit` does."""

from __future__ import annotations

import pytest

from kspark import SparkModel


@pytest.fixture
def by_spark_model(spark, grammar):
    def fit(made):
        spark_model = SparkModel(made.model, num_workers=1)
        history = spark_model.fit(made.x, made.y, batch_size=grammar.BATCH, **grammar.FIT)
        return made.model, history.history

    return fit


@pytest.mark.timeout(600)
def test_thirty_generated_models_train_as_in_keras(by_spark_model, grammar):
    grammar.check_trains_as_in_keras(by_spark_model, range(30))


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(30, 330, 30))
def test_further_generated_models_train_as_in_keras(first, by_spark_model, grammar):
    grammar.check_trains_as_in_keras(by_spark_model, range(first, first + 30))
