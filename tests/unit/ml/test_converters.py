"""Values that Params accept, and what they become."""

import json

import keras
import numpy as np
import pytest

from kspark.compression import TopK
from kspark.ml import (
    KerasClassifier,
    KerasEstimator,
)
from kspark.optimizers import Adam


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
        ("weightCol", 3, "`weightCol` must be the name of a column, or a list of names"),
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
        ("serverOptimizer", "adamm", "`serverOptimizer` must be one of"),
        ("serverOptimizer", 3, "`serverOptimizer` must be a rule's name"),
        ("compression", "float8", '`compression` must be None or one of "bfloat16", "float16"'),
        ("reshuffle", "batch", '`reshuffle` must be None, "epoch" or an integer >= 1'),
        ("reshuffle", 0, '`reshuffle` must be None, "epoch" or an integer >= 1'),
        ("scaleLr", "log", '`scaleLr` must be one of "linear", "sqrt". Received'),
        ("warmupEpochs", -1, "`warmupEpochs` must be a finite number of epochs >= 0"),
        ("warmupEpochs", "2", "`warmupEpochs` must be a finite number of epochs >= 0"),
        ("compression", 8, "`compression` must be None, a codec's name"),
    ],
)
def test_invalid_values_are_refused_when_they_are_set(name, value, rule):
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


def test_an_optimizer_of_keras_becomes_plain_data():
    rule = keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.1, 10))
    value = KerasEstimator(serverOptimizer=rule).getServerOptimizer()
    assert json.loads(json.dumps(value)) == value
    assert value["config"]["optimizer"] == keras.optimizers.serialize(rule)
    for same in (value, keras.optimizers.serialize(rule)):
        assert KerasEstimator(serverOptimizer=same).getServerOptimizer() == value
    with pytest.raises(ValueError, match="`serverOptimizer` must be a Keras optimizer without `us"):
        KerasEstimator(serverOptimizer=keras.optimizers.SGD(use_ema=True))
