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


def test_a_notebook_shows_the_model_and_the_params_that_were_set(make):
    stage = KerasEstimator(make(), epochs=3, featuresCol="x" * 100)
    html = stage._repr_html_()
    assert f"<caption>{stage.uid}</caption>" in html
    assert f"<td>model</td><td>{stage.getModel().name}, 43 parameters</td>" in html
    assert "<td>epochs</td><td>3</td>" in html
    assert f"<td>featuresCol</td><td>{'x' * 57}...</td>" in html
    assert html.count("<tr>") == 4


def test_a_stage_without_a_model_and_one_that_is_not_built_are_shown():
    assert "<td>model</td><td>none</td>" in KerasModel()._repr_html_()
    unbuilt = keras.Sequential([keras.layers.Dense(1)], name="later")
    assert "<td>model</td><td>later, not built</td>" in KerasModel(unbuilt)._repr_html_()
