"""A Sequential that was defined without an input shape is built from the first row."""

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.ml.linalg import Vectors

from kspark import SparkModel
from kspark.adapters import Columns
from kspark.job import first_example
from kspark.replica import Replica
from kspark.spark_model.inputs import example_for

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
LABELS = [0, 1]


def unbuilt(loss="mse"):
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", loss)
    return model


def table():
    return {"features": ROWS, "label": LABELS}


LOCAL = {
    "list": lambda: (ROWS, False),
    "rows": lambda: ([np.array(row) for row in ROWS], False),
    "one array": lambda: ([np.array(ROWS)], False),
    "tensor": lambda: (keras.ops.array(ROWS), False),
    "pandas": lambda: (pd.DataFrame(table()), True),
    "matrix": lambda: (pd.DataFrame(ROWS), False),
    "pyarrow": lambda: (pa.table(table()), True),
}


def distributed(spark):
    pairs = list(zip(ROWS, LABELS, strict=True))
    vectors = spark.createDataFrame([(Vectors.dense(row), label) for row, label in pairs])
    return {
        "rdd": (spark.sparkContext.parallelize(pairs, 2), True),
        "features": (spark.sparkContext.parallelize(ROWS, 2), False),
        "vectors": (vectors.toDF("features", "label"), True),
        "lists": (spark.createDataFrame(pairs, ["features", "label"]), True),
    }


def built_from(x, labelled, columns=Columns()):  # noqa: B008
    model = unbuilt()
    Replica.of(model, example_for(model, x, columns, labelled=labelled))
    return model


@pytest.mark.parametrize("kind", LOCAL)
def test_the_first_row_of_driver_data_builds_the_model(spark, kind):
    x, labelled = LOCAL[kind]()
    assert first_example(spark, x, Columns(), labelled=labelled).tolist() == ROWS[:1]
    assert built_from(x, labelled).input_shape[1:] == (3,)


@pytest.mark.parametrize("kind", ["rdd", "features", "vectors", "lists"])
def test_the_first_row_of_spark_data_builds_the_model(spark, kind):
    x, labelled = distributed(spark)[kind]
    assert first_example(spark, x, Columns(), labelled=labelled).tolist() == ROWS[:1]
    assert built_from(x, labelled).input_shape[1:] == (3,)


@pytest.mark.parametrize("columns", [["b", "a"], {"dense_input": ["b", "a"]}])
def test_feature_columns_are_joined_in_the_given_order(spark, columns):
    frame = spark.createDataFrame([(1.0, 2.0, 0)], ["a", "b", "label"])
    example = first_example(spark, frame, Columns(columns), labelled=True)
    assert example.tolist() == [[2, 1]]


def test_a_model_is_not_built_without_rows_or_labels(spark):
    empty = spark.sparkContext.emptyRDD()
    assert first_example(spark, empty, Columns(), labelled=True) is None
    frame = spark.createDataFrame([], "features double, label double")
    assert first_example(spark, frame, Columns(), labelled=True) is None
    with pytest.raises(ValueError, match="'label', which `label_col` names"):
        first_example(spark, frame.drop("label"), Columns(), labelled=True)
    with pytest.raises(ValueError, match="`model` must be built"):
        built_from(empty, True)
    with pytest.raises(ValueError, match="`y` must be labels"):
        built_from(ROWS, True)


def test_no_row_is_read_for_a_model_that_needs_none():
    class Never:
        pass

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    subclassed = type("Own", (keras.Model,), {})()
    x, array = Never(), np.array(ROWS)
    assert example_for(model, x, Columns(), labelled=True) is x
    assert example_for(subclassed, x, Columns(), labelled=True) is x
    assert example_for(unbuilt(), array, Columns(), labelled=True) is array
    assert example_for(unbuilt(), {"x": array}, Columns(), labelled=True)["x"] is array


def test_labels_are_not_expected_without_a_loss(spark):
    model = unbuilt(loss=None)
    rows = spark.sparkContext.parallelize(ROWS, 2)
    assert example_for(model, rows, Columns(), labelled=True).tolist() == ROWS[:1]


def test_the_model_built_from_the_first_row_is_evaluated(spark):
    pairs = [(row, [1.0, 2.0]) for row in ROWS * 3]
    model = unbuilt()
    loss = SparkModel(model, batch_size=2).evaluate(spark.sparkContext.parallelize(pairs, 2))
    expected = model.evaluate(np.array(ROWS * 3), np.array([[1.0, 2.0]] * 6), verbose=0)
    assert loss == pytest.approx(expected)
