"""Scores of a task that is lost half-way: rows and predictions still belong together."""

import os

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import functions as F

from kspark import SparkModel
from kspark.ml import KerasModel


def fail_late_once(batches):
    yield from batches
    if TaskContext.get().attemptNumber() == 0:
        raise RuntimeError("lost on its first attempt")


def test_a_retried_task_gives_every_row_its_own_prediction(cluster):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[2.0]])])
    rows = cluster.range(0, 400, 1, 2).withColumn("features", F.rand())
    moved = rows.repartition(2, F.rand())
    scored = KerasModel(model).transform(moved)
    found = scored.mapInArrow(fail_late_once, scored.schema).collect()
    assert sorted(r.id for r in found) == list(range(400))
    np.testing.assert_allclose(
        [r.prediction for r in found], [2 * r.features for r in found], rtol=1e-6
    )


@keras.saving.register_keras_serializable("tests")
class EndsFirstAttempts(keras.layers.Layer):
    """Ends the process of the first attempt of every task."""

    def call(self, inputs):
        context = TaskContext.get()
        if context is not None and context.attemptNumber() == 0:
            os._exit(1)
        return 2 * inputs


def test_files_have_the_rows_of_one_attempt_each(cluster, tmp_path):
    for i in range(3):
        rows = {"features": np.arange(100.0 * i, 100 * i + 100)}
        pq.write_table(pa.table(rows), tmp_path / f"{i}.parquet", row_group_size=30)
    model = keras.Sequential([keras.Input((1,)), EndsFirstAttempts()])
    model.compile("sgd", "mse")
    out = tmp_path / "out"
    SparkModel(model, num_workers=2).predict(f"{tmp_path}/*.parquet", output=out, verbose=0)
    scored = pq.read_table(out)
    assert scored["features"].to_pylist() == list(range(300))
    assert scored["prediction"].to_pylist() == list(range(0, 600, 2))
    assert sorted(os.listdir(tmp_path)) == ["0.parquet", "1.parquet", "2.parquet", "out"]
