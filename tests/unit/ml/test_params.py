"""Params of the stages: names, getters and setters, defaults."""

import json

import keras
import pytest

from kspark.ml import (
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressor,
)

STAGES = [
    KerasEstimator,
    KerasClassifier,
    KerasRegressor,
    KerasModel,
    KerasClassificationModel,
]

VALUES = {
    "augment": "json:loads",
    "batchSize": 64,
    "callbacks": [],
    "classWeight": {"0": 1.0, "1": 2.0},
    "classification": "multilabel",
    "compression": "bfloat16",
    "epochs": 7,
    "featureLayer": "hidden",
    "featuresCol": ["a", "b"],
    "frequency": 3,
    "fromLogits": True,
    "inferenceBatchSize": 5,
    "inputCols": {"user": "u", "item": ["i", "j"]},
    "labelCol": ["y", "z"],
    "maxFailures": 0,
    "maxStaleness": 3,
    "mode": "hogwild",
    "numWorkers": 3,
    "onNonfinite": "ignore",
    "outputCol": "inner",
    "port": [4000, 4010],
    "predictionCol": "guess",
    "preprocess": "json:loads",
    "probabilityCol": "chance",
    "rawPredictionCol": "margin",
    "reshuffle": 3,
    "road": "live",
    "scaleLr": "sqrt",
    "seed": 9,
    "serverOptimizer": "adam",
    "shuffle": False,
    "stepTimeout": 4.5,
    "stragglerTimeout": 2.5,
    "thresholds": [0.5, 0.25],
    "timeout": 3.5,
    "validationIndicatorCol": "held_out",
    "validationSplit": 0.25,
    "verbose": 2,
    "warmupEpochs": 2.5,
    "weightCol": "w",
}


def test_every_param_has_a_test_value():
    assert {p.name for stage in STAGES for p in stage().params} == set(VALUES)


@pytest.mark.parametrize("stage", STAGES)
def test_constructor_setters_and_set_params_agree(stage):
    values = {p.name: VALUES[p.name] for p in stage().params}
    by_setter = stage()
    for name, value in values.items():
        title = name[0].upper() + name[1:]
        assert getattr(by_setter, f"set{title}")(value) is by_setter
        assert getattr(by_setter, f"get{title}")() == value
    for other in (stage(**values), stage().setParams(**values)):
        assert {p.name: v for p, v in other.extractParamMap().items()} == values


@pytest.mark.parametrize("stage", STAGES)
def test_values_survive_json(stage):
    values = {p.name: json.loads(json.dumps(VALUES[p.name])) for p in stage().params}
    assert {p.name: v for p, v in stage(**values).extractParamMap().items()} == values


def test_params_have_the_documented_defaults():
    found = {p.name: v for p, v in KerasClassifier().extractParamMap().items()}
    assert found == {
        "batchSize": 32,
        "classification": "auto",
        "epochs": 1,
        "featuresCol": "features",
        "frequency": "epoch",
        "inferenceBatchSize": 1024,
        "labelCol": "label",
        "maxFailures": 2,
        "mode": "synchronous",
        "onNonfinite": "raise",
        "outputCol": "activations",
        "port": 0,
        "predictionCol": "prediction",
        "probabilityCol": "probability",
        "rawPredictionCol": "rawPrediction",
        "road": "auto",
        "serverOptimizer": "average",
        "shuffle": True,
        "timeout": 60.0,
        "validationSplit": 0.0,
        "verbose": 0,
        "warmupEpochs": 0.0,
    }


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("epoch", "epochs"),
        ("batch_size", "batchSize"),
        ("featureCol", "featuresCol"),
        ("validation_split", "validationSplit"),
        ("num_worker", "numWorkers"),
    ],
)
def test_unknown_arguments_are_refused_with_the_nearest_name(name, meant):
    with pytest.raises(TypeError, match=f"not recognized: '{name}'. Did you mean '{meant}'"):
        KerasEstimator(**{name: 1})
    with pytest.raises(TypeError, match=f"'{name}'. Did you mean '{meant}'"):
        KerasEstimator().setParams(**{name: 1})


def test_an_unknown_argument_that_resembles_no_name_gets_no_suggestion():
    with pytest.raises(TypeError, match="not recognized: 'xyzzy'.$"):
        KerasEstimator(xyzzy=1)


def test_a_model_has_no_training_params():
    with pytest.raises(TypeError, match="not recognized: 'epochs'"):
        KerasModel(epochs=3)


def test_none_does_not_set_a_param():
    stage = KerasEstimator(epochs=None, numWorkers=None)
    assert stage.getEpochs() == 1
    assert not stage.isDefined("numWorkers")


def test_a_list_of_callbacks_is_copied_shallowly():
    given = [keras.callbacks.EarlyStopping()]
    assert KerasEstimator(callbacks=given).getCallbacks() == given


def test_copies_do_not_share_values(make):
    stage = KerasClassifier(make(), epochs=2)
    copy = stage.copy({stage.epochs: 5})
    copy.setBatchSize(7)
    assert (stage.getEpochs(), copy.getEpochs()) == (2, 5)
    assert (stage.getBatchSize(), copy.getBatchSize()) == (32, 7)
    assert copy.uid == stage.uid
    assert copy.getModel() is stage.getModel()


def test_params_have_explanations():
    text = KerasClassifier(epochs=4).explainParams()
    assert "epochs: passes over the data. (default: 1, current: 4)" in text


def test_setters_have_docstrings_and_getters_have_names():
    assert (
        KerasClassifier.setEpochs.__doc__ == "Set `epochs`: passes over the data. Returns `self`."
    )
    assert KerasEstimator.getEpochs.__name__ == "getEpochs"


def test_features_col_and_input_cols_exclude_each_other():
    stage = KerasEstimator(inputCols={"a": "x"})
    assert stage.feature_columns() == {"a": "x"}
    stage.setFeaturesCol("y")
    with pytest.raises(ValueError, match="`featuresCol` must be left out when `inputCols` is set"):
        stage.feature_columns()
