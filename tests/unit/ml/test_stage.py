"""Stages and the models that they accept, without Spark."""

import keras
import pytest

from kspark.ml import (
    KerasEstimator,
    KerasModel,
)


class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def test_only_keras_models_become_stages(make):
    with pytest.raises(TypeError, match="`model` must be a compiled `keras.Model`"):
        KerasEstimator("model")
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`"):
        KerasModel("model")
    with pytest.raises(ValueError, match="`model` must be compiled"):
        KerasEstimator(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    assert isinstance(KerasEstimator(make).getModel(), keras.Model)


def test_a_stage_without_a_model_raises_an_error():
    with pytest.raises(ValueError, match="`model` must be given to `KerasEstimator`"):
        KerasEstimator().getModel()
    with pytest.raises(ValueError, match="`model` must be given to `KerasModel`"):
        KerasModel().kerasModel  # noqa: B018
    with pytest.raises(ValueError, match="`customObjects` must be left out without a model"):
        KerasEstimator(customObjects={"Twice": Twice})
