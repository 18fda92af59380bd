"""From what the user gave to examples, without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kspark.adapters import Columns
from kspark.replica import Replica
from kspark.source import Source

X, Y = np.zeros((6, 4), "float32"), np.arange(6) % 3


@pytest.fixture
def source():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(loss="sparse_categorical_crossentropy")
    spark = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
    return Source(spark, Replica.of(model), Columns(), None)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        ((X[:, :3], Y), ValueError, "`x` must hold examples of shape (4,)"),
        ((X, Y[:3]), ValueError, "All arrays of `x`, `y` and"),
        ((X, Y.astype(str)), ValueError, "`y` must be numbers"),
        ("x", TypeError, "`x` must be numpy arrays"),
        (X, ValueError, "`y` must be labels"),
    ],
)
def test_errors_in_validation_data_say_so(source, data, kind, text):
    with pytest.raises(kind) as caught:
        source.validation(data)
    assert str(caught.value).startswith(f"In `validation_data`: {text}")


@pytest.mark.parametrize("data", [(X, Y), [X, Y], (X, Y, np.ones(6))])
def test_validation_data_like_that_of_keras(source, data):
    assert source.validation(data).num_examples == 6


def test_errors_in_training_data_do_not(source):
    with pytest.raises(ValueError, match="^`x` must hold"):
        source.training(X[:, :3], Y, None, 0.0)
    with pytest.raises(ValueError, match="^`y` must be numbers"):
        source.training(X, Y.astype(str), None, 0.0)
