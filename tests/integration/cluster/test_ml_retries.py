"""`transform` with a task that is lost half-way: rows and predictions still belong together."""

import keras
import numpy as np
from pyspark import TaskContext
from pyspark.sql import functions as F

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
