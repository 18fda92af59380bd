"""The arrays of the user become examples, without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kspark import SparkModel, job
from kspark.adapters import Columns
from kspark.session import default
from kspark.spark_model.inputs import Source

X, Y = np.zeros((6, 4), "float32"), np.arange(6) % 3


@pytest.fixture
def source():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(loss="sparse_categorical_crossentropy")
    spark = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
    x = SimpleNamespace(sparkSession=spark)
    return Source(model, x, Columns(), None, labelled=False)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        ((X[:, :3], Y), ValueError, "`x` must hold examples of shape (4,)"),
        ((X, Y[:3]), ValueError, "All arrays of `x`, `y` and"),
        ((X, Y.astype(str)), ValueError, "`y` must be numbers"),
        (5, TypeError, "`x` must be numpy arrays"),
        (X, ValueError, "`y` must be labels"),
    ],
)
def test_errors_in_validation_data_name_the_argument(source, data, kind, text):
    with pytest.raises(kind) as caught:
        source.validation(data)
    assert str(caught.value).startswith(f"In `validation_data`: {text}")


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (Y - 1, "class numbers from 0 to 2 .*whole numbers from -1 to 1"),
        (Y + 1, "class numbers from 0 to 2 .*whole numbers from 1 to 3"),
        (Y + 0.5, "class numbers from 0 to 2"),
        (np.eye(3)[Y], "class numbers, not one-hot"),
        (np.where(Y == 1, np.nan, Y), "finite"),
        (np.array(list("abcabc")), "numbers for the loss"),
        (np.array([None] * 6), "must hold numbers"),
    ],
)
def test_labels_on_the_driver_are_checked_before_any_job(source, y, words):
    tables = [pd.DataFrame({"features": list(X), "label": list(y)})]
    if y.dtype != object:
        tables.append(pa.table({"features": X.tolist(), "label": y.tolist()}))
    for data in ((X, y), *((table,) for table in tables)):
        with pytest.raises(ValueError, match=f"{words}|Column 'label' must hold"):
            source.training(data[0], data[1] if len(data) > 1 else None, None, 0.0)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones((6, 2)), "one weight per example, for"),
        (np.full(6, np.nan), "finite"),
        (np.array(["a"] * 6), "must hold numbers"),
        (np.ones(5), "same number of rows"),
    ],
)
def test_weights_on_the_driver_are_checked_before_any_job(source, weights, words):
    with pytest.raises(ValueError, match=words):
        source.training(X, Y, weights, 0.0)


@pytest.mark.parametrize("data", [(X, Y), [X, Y], (X, Y, np.ones(6))])
def test_validation_data_may_be_a_tuple_or_a_list(source, data):
    assert source.validation(data).num_examples == 6


def test_errors_in_training_data_have_no_prefix(source):
    with pytest.raises(ValueError, match="^`x` must hold"):
        source.training(X[:, :3], Y, None, 0.0)
    with pytest.raises(ValueError, match="^`y` must be numbers"):
        source.training(X, Y.astype(str), None, 0.0)


@pytest.mark.parametrize(
    ("call", "labelled"),
    [
        (lambda model, x: model.fit(x), True),
        (lambda model, x: model.fit(x, Y), False),
        (lambda model, x: model.evaluate(x), True),
        (lambda model, x: model.evaluate(x, Y), False),
        (lambda model, x: model.predict(x), False),
    ],
)
def test_models_are_built_from_the_given_data(monkeypatch, call, labelled):
    """Without Spark, because the first row is read before anything else happens."""
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile(loss="mse")
    data = SimpleNamespace(sparkSession="session")
    asked = []

    def first_example(spark, x, columns, *, labelled):
        asked.append((spark, x, columns.features_col, labelled))
        raise LookupError

    monkeypatch.setattr(job, "first_example", first_example)
    with pytest.raises(LookupError):
        call(SparkModel(model), data)
    assert asked == [("session", data, "features", labelled)]


def test_without_a_session_a_call_begins_with_the_start_of_spark(monkeypatch):
    monkeypatch.setattr(default, "active_session", lambda: None)
    assert default.first_phase(np.zeros(3)) == "Starting Spark"
    assert default.first_phase(SimpleNamespace(sparkSession="one")) == "Preparing the rows"
    monkeypatch.setattr(default, "active_session", lambda: "one")
    assert default.first_phase(np.zeros(3)) == "Preparing the rows"


@pytest.mark.parametrize("x", [np.ones((3, 2)), pd.DataFrame({"a": [1.0], "b": [2.0]}), "rows"])
def test_the_name_of_a_column_is_refused_where_none_is_added(x):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`output_col` must be left out unless"):
        SparkModel(model).predict(x, output_col="score")
