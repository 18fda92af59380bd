"""Params of the stages: names, values, errors."""

import json

import keras
import numpy as np
import pytest

from kspark.compression import TopK
from kspark.ml import (
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressor,
)
from kspark.optimizers import Adam

STAGES = [
    KerasEstimator,
    KerasClassifier,
    KerasRegressor,
    KerasModel,
    KerasClassificationModel,
]

VALUES = {
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
    "probabilityCol": "chance",
    "rawPredictionCol": "margin",
    "scaleLr": "sqrt",
    "seed": 9,
    "serverOptimizer": "adam",
    "shuffle": False,
    "stragglerTimeout": 2.5,
    "thresholds": [0.5, 0.25],
    "timeout": 3.5,
    "validationIndicatorCol": "held_out",
    "validationSplit": 0.25,
    "verbose": 2,
    "warmupEpochs": 2.5,
    "weightCol": "w",
}


def test_every_param_is_known_here():
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


def test_defaults():
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


def test_what_resembles_nothing_is_refused_without_a_guess():
    with pytest.raises(TypeError, match="not recognized: 'xyzzy'.$"):
        KerasEstimator(xyzzy=1)


def test_a_model_has_no_params_of_training():
    with pytest.raises(TypeError, match="not recognized: 'epochs'"):
        KerasModel(epochs=3)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("epochs", 0, "`epochs` must be an integer >= 1. Received: epochs=0"),
        ("epochs", 1.5, "`epochs` must be an integer >= 1"),
        ("batchSize", "4", "`batchSize` must be an integer >= 1"),
        ("numWorkers", 0, "`numWorkers` must be an integer >= 1"),
        ("mode", "sync", "`mode` must be one of"),
        ("frequency", "often", "`frequency` must be"),
        ("validationSplit", 1.0, "`validationSplit` must be a number >= 0 and < 1"),
        ("featuresCol", [], "`featuresCol` must be the name of a column, or a list of names"),
        ("featuresCol", ["a", 1], "`featuresCol` must be"),
        ("inputCols", "a", "`inputCols` must be a dictionary"),
        ("inputCols", {}, "`inputCols` must be a dictionary"),
        ("labelCol", 3, "`labelCol` must be"),
        ("weightCol", 3, "`weightCol` must be a string"),
        ("thresholds", [0.5, -1], "`thresholds` must be"),
        ("thresholds", [0, 0, 1], "at most one of them 0"),
        ("thresholds", "ab", "`thresholds` must be"),
        ("thresholds", [], "`thresholds` must be"),
        ("thresholds", ["a"], "`thresholds` must be"),
        ("classification", "many", "`classification` must be one of"),
        ("fromLogits", 1, "`fromLogits` must be True or False"),
        ("verbose", 3, "`verbose` must be"),
        ("verbose", True, "`verbose` must be"),
        ("callbacks", "EarlyStopping", "`callbacks` must be"),
        ("timeout", 0, "`timeout` must be"),
        ("port", 70000, "`port` must be"),
        ("maxStaleness", -1, "`maxStaleness` must be an integer >= 0"),
        ("onNonfinite", "warn", "`onNonfinite` must be one of"),
        ("classWeight", {"a": 1}, "`classWeight` must be"),
        ("seed", -1, "`seed` must be an integer >= 0"),
        ("compression", "float8", '`compression` must be None or one of "bfloat16", "float16"'),
        ("scaleLr", "log", '`scaleLr` must be one of "linear", "sqrt". Received'),
        ("warmupEpochs", -1, "`warmupEpochs` must be a finite number of epochs >= 0"),
        ("warmupEpochs", "2", "`warmupEpochs` must be a finite number of epochs >= 0"),
        ("compression", 8, "`compression` must be None, a codec's name"),
    ],
)
def test_wrong_values_are_refused_at_once(name, value, rule):
    with pytest.raises((TypeError, ValueError)) as caught:
        KerasClassifier(**{name: value})
    assert rule in str(caught.value)


def test_values_become_plain_data():
    stage = KerasEstimator(
        epochs=np.int64(3),
        batchSize=8.0,
        featuresCol=("a", "b"),
        classWeight={0: 1, np.int64(1): 2},
        port=(4000, 4001),
        frequency=2.0,
        warmupEpochs=2,
        serverOptimizer=Adam(learning_rate=0.5),
        compression=TopK(0.5),
    )
    values = {p.name: v for p, v in stage.extractParamMap().items()}
    assert json.loads(json.dumps(values)) == values
    assert (values["epochs"], values["batchSize"], values["frequency"]) == (3, 8, 2)
    assert repr(values["warmupEpochs"]) == "2.0"
    assert values["serverOptimizer"]["config"]["learning_rate"] == 0.5
    assert values["compression"] == {"class_name": "TopK", "config": {"fraction": 0.5}}
    assert stage.model_arguments()["compression"] == values["compression"]
    assert stage.class_weights() == {0: 1.0, 1: 2.0}


def test_none_leaves_a_param_as_it_is():
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


def test_params_are_explained():
    text = KerasClassifier(epochs=4).explainParams()
    assert "epochs: passes over the data. (default: 1, current: 4)" in text


def test_setters_tell_what_they_set():
    assert (
        KerasClassifier.setEpochs.__doc__ == "Set `epochs`: passes over the data. Returns `self`."
    )
    assert KerasEstimator.getEpochs.__name__ == "getEpochs"


def test_features_come_from_one_place():
    stage = KerasEstimator(inputCols={"a": "x"})
    assert stage.feature_columns() == {"a": "x"}
    stage.setFeaturesCol("y")
    with pytest.raises(ValueError, match="`featuresCol` must be left out when `inputCols` is set"):
        stage.feature_columns()
