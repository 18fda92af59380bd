"""Thousands of columns, one per feature, on `local[2]`: as one column of arrays."""

import keras
import numpy as np
import pandas as pd
import pytest
from pyspark.errors import PythonException
from pyspark.sql import functions as F

from kspark import SparkModel
from kspark.adapters import frame_columns
from kspark.errors import WorkerError
from kspark.ml import KerasClassifier

WIDTH, ROWS = 1500, 12
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(ROWS, WIDTH)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int64")
NAMES = [f"c{i}" for i in range(WIDTH)]


def classifier():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def model():
    return SparkModel(classifier(), num_workers=2, seed=3, batch_size=4)


@pytest.fixture(scope="module")
def table():
    return pd.DataFrame(X.astype("float64"), columns=NAMES).assign(label=Y)


@pytest.fixture(scope="module")
def frame(spark, table):
    return spark.createDataFrame(table).repartition(2).cache()


def collected(frame):
    rows = frame.select(F.array(*NAMES), "label").collect()
    return np.array([row[0] for row in rows], "float32"), np.array([row[1] for row in rows])


def test_columns_train_and_score_as_one_column_of_arrays(frame, spark, table, tmp_path):
    arrays = frame.select(F.array(*NAMES).alias("features"), "label")
    by_arrays, by_columns = model(), model()
    expected = by_arrays.fit(arrays, epochs=2, verbose=0).history
    found = by_columns.fit(frame, epochs=2, features_col=NAMES, verbose=0).history
    assert found == expected
    assert by_columns.evaluate(frame, features_col=NAMES, verbose=0) == by_arrays.evaluate(
        arrays, verbose=0
    )
    x, _ = collected(frame)
    predicted = by_arrays.master_network.predict(x, verbose=0)
    scored = by_columns.predict(frame, features_col=NAMES)
    assert scored.columns == [*NAMES, "label", "prediction"]
    np.testing.assert_allclose(
        [row[0] for row in scored.select("prediction").collect()], predicted, rtol=1e-5
    )
    frame.write.parquet(str(tmp_path / "rows"))
    for rows in (str(tmp_path / "rows"), table):
        found = by_columns.predict(rows, features_col=NAMES, verbose=0)
        assert found.shape == (ROWS, 2)
    np.testing.assert_allclose(found, by_arrays.master_network.predict(X, verbose=0), rtol=1e-5)


def test_a_stage_takes_thousands_of_columns(frame):
    stage = KerasClassifier(classifier(), featuresCol=NAMES, epochs=1, seed=3)
    scored = stage.fit(frame).transform(frame)
    assert scored.select("prediction").count() == ROWS


def test_columns_of_all_kinds_of_numbers_become_one(frame):
    kinds = ["int", "boolean", "decimal(9,3)", "float", "smallint", "double"]
    casts = {name: F.col(name).cast(kinds[i % 6]) for i, name in enumerate(NAMES)}
    mixed = frame.withColumns(casts)
    expected = mixed.select(F.array(*(F.col(n).cast("double") for n in NAMES)).alias("features"))
    found = model().predict(mixed, features_col=NAMES).select("prediction").collect()
    assert found == model().predict(expected).select("prediction").collect()


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_a_null_is_refused_by_the_name_of_its_column(frame, call):
    column = F.when(F.col("c3") > F.col("c4"), F.col("c1234"))
    rows = frame.withColumn("c1234", column)

    def run():
        found = getattr(model(), call)(rows, features_col=NAMES, verbose=0)
        return found.select("prediction").collect()

    with pytest.raises(
        (ValueError, WorkerError, PythonException),
        match=r"Column 'c1234' must hold no nulls. Received: null in row",
    ):
        run()


def test_a_missing_column_is_named_beside_few_others(frame):
    with pytest.raises(ValueError, match=r"There is no column 'c15000'.*nearest names.*'c1500?'?"):
        model().predict(frame, features_col=[*NAMES[:-1], "c15000"])


def test_the_schema_is_read_a_few_times_and_one_column_leaves_spark(frame, monkeypatch, capsys):
    """So the time of the driver grows with the number of columns, and not with its square."""
    read = []

    class Counted(frame_columns.FrameColumns):
        def __init__(self, frame):
            read.append(frame)
            super().__init__(frame)

    for place in ("kspark.adapters.dataframe", "kspark.job.frame_scoring"):
        monkeypatch.setattr(f"{place}.FrameColumns", Counted)
    scored = model().predict(frame, features_col=NAMES)
    assert len(read) <= 4
    scored.explain()
    assert capsys.readouterr().out.count("cast(concat(array(") == 1
