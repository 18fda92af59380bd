"""What an estimator passes to `SparkModel`, without Spark."""

import keras
import pytest

from kspark.ml import (
    KerasEstimator,
)
from kspark.ml.estimator import own_callbacks
from kspark.spark_model import SparkModel


def test_every_fit_gets_its_own_callbacks():
    given = keras.callbacks.EarlyStopping(patience=3)
    (first,), (second,) = own_callbacks([given]), own_callbacks([given])
    assert len({id(c) for c in (given, first, second)}) == 3
    assert first.patience == 3
    made = own_callbacks(lambda: [given])
    assert made == [given]
    assert own_callbacks(None) is None


def test_arguments_of_fit_are_passed_on(monkeypatch, frame):
    class Seen(Exception):
        pass

    def fit(self, x, **arguments):
        raise Seen(*(arguments[name] for name in ("scale_lr", "warmup_epochs", "reshuffle")))

    monkeypatch.setattr(SparkModel, "fit", fit)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for params, handed in (
        ({}, (None, 0.0, None)),
        ({"scaleLr": "sqrt", "warmupEpochs": 2}, ("sqrt", 2.0, None)),
        ({"reshuffle": "epoch"}, (None, 0.0, "epoch")),
        ({"reshuffle": 2.0}, (None, 0.0, 2)),
    ):
        with pytest.raises(Seen) as seen:
            KerasEstimator(model, **params)._fit(frame)
        assert seen.value.args == handed


def test_errors_of_arguments_of_fit_name_the_params(frame):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`scaleLr` must be None with mode.*: scaleLr='sqrt'$"):
        KerasEstimator(model, scaleLr="sqrt")._fit(frame)
    with pytest.raises(ValueError, match="`warmupEpochs` must be 0 without `scaleLr`"):
        KerasEstimator(model, warmupEpochs=2)._fit(frame)
    with pytest.raises(ValueError, match="`reshuffle` must be None with a `stragglerTimeout`"):
        KerasEstimator(model, reshuffle=2, stragglerTimeout=2)._fit(frame)
