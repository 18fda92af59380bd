"""Every setting of `SparkModel` is declared once, and everything that lists settings agrees."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.ml import KerasClassifier, KerasEstimator, KerasRegressor
from kspark.ml.naming import KERAS, camel_case
from kspark.mllib import SparkMLlibModel
from kspark.plan import TrainingPlan
from kspark.plan.settings import PLAN_SETTINGS, SETTINGS

SIGNATURE = inspect.signature(SparkModel.__init__).parameters


def compiled():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_spark_model_takes_every_setting_and_no_other_argument():
    others = {"self", "model", "custom_objects", "elephas", "preprocess", "resources"}
    assert set(SIGNATURE) - others == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_has_one_default(name):
    default = SETTINGS[name].default
    assert SIGNATURE[name].default == default
    stage = KerasEstimator()
    assert stage.value_of(camel_case(name)) == default


@pytest.mark.parametrize("front", [KerasClassifier, KerasRegressor, KerasEstimator])
@pytest.mark.parametrize("name", SETTINGS)
def test_all_stages_have_the_default_of_a_setting(name, front):
    assert front().value_of(camel_case(name)) == SETTINGS[name].default


def test_the_model_for_mllib_has_the_defaults_of_all_settings():
    assert SparkMLlibModel(compiled()).get_config() == SparkModel(compiled()).get_config()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_docstring_explains_a_setting_and_its_default(name):
    text = inspect.getdoc(SparkModel)
    entry = re.search(rf"^    {name}: (.*(?:\n      .*)*)", text, re.MULTILINE)
    assert entry, name
    default = SETTINGS[name].default
    written = f'"{default}"' if isinstance(default, str) else repr(default)
    assert f"Defaults to `{written}`" in " ".join(entry[1].split())


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_an_attribute_and_is_saved(name):
    model = SparkModel(compiled())
    assert hasattr(model, name)
    assert name in model.get_config()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_a_param_of_stages(name):
    param = KerasEstimator().getParam(camel_case(name))
    assert param.doc == SETTINGS[name].doc
    assert KERAS[name] == param.name


def test_a_plan_has_every_setting_but_the_server_optimizer():
    assert set(SETTINGS) - set(PLAN_SETTINGS) == {"server_optimizer"}
    assert set(PLAN_SETTINGS) < {field.name for field in fields(TrainingPlan)}


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="Argument\\(s\\) not recognized: batchsize"):
        TrainingPlan.create(batchsize=3)


def test_a_default_of_none_is_not_checked():
    assert SETTINGS["seed"].checked("seed", None) is None
    with pytest.raises(TypeError, match="`batch_size` must be an integer >= 1"):
        SETTINGS["batch_size"].checked("batch_size", None)


def test_building_a_model_draws_no_random_number():
    np.random.seed(3)
    state = np.random.get_state()[1].tolist()
    SparkModel(compiled())
    assert np.random.get_state()[1].tolist() == state
