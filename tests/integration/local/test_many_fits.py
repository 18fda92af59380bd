"""Workers keep what they have built for the next model of the same architecture."""

from __future__ import annotations

import os
import time

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.cluster.engine import engine_of
from kspark.ml import KerasModel

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = X[:, :1]


def made(units=8):
    keras.utils.set_random_seed(1)
    parts = [keras.Input((4,)), keras.layers.Dense(units, "relu"), keras.layers.Dropout(0.3)]
    model = keras.Sequential([*parts, keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=[keras.metrics.AUC()])
    return model


def fitted(spark, **arguments):
    model = made()
    SparkModel(model, num_workers=2, batch_size=8, seed=3, **arguments).fit(
        X, (Y > 0).astype("float32"), epochs=2, verbose=0
    )
    return b"".join(np.asarray(weight).tobytes() for weight in model.get_weights())


def facts(index, rows):
    """Process, models that it has built, open files and threads."""
    from kspark.worker.memory import models_built

    for _ in rows:
        pass
    time.sleep(0.2)  # so that a worker does not run the tasks of both
    counts = [len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task")]
    yield os.getpid(), models_built(), counts


def workers(spark):
    engine = engine_of(spark)
    found = engine.collect(engine.on_every_slot(facts, 2), None)
    return {process: (models, counts) for process, models, counts in found}


def no_more(counts, before):
    return all(now <= then for now, then in zip(counts, before, strict=True))


@pytest.mark.parametrize("frequency", ["epoch", "batch"])
def test_fits_of_new_models_build_nothing_and_train_the_same_bytes(spark, frequency):
    expected = fitted(spark, frequency=frequency)
    before, files = workers(spark), len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert fitted(spark, frequency=frequency) == expected
    after = workers(spark)
    assert after.keys() == before.keys()
    for process, (models, counts) in after.items():
        assert models == before[process][0]
        assert no_more(counts, before[process][1])
    assert len(os.listdir("/proc/self/fd")) <= files


def test_a_new_model_predicts_with_the_replica_of_an_earlier_one(spark):
    frame = spark.createDataFrame([(row.tolist(),) for row in X], ["features"]).repartition(2)

    def scored(model):
        rows = KerasModel(model, featuresCol="features").transform(frame).collect()
        found = {tuple(row["features"]): row["prediction"] for row in rows}
        return [found[tuple(row.tolist())] for row in X]

    for _ in range(3):
        model = made()
        np.testing.assert_allclose(scored(model), model.predict(X, verbose=0)[:, 0], rtol=1e-5)
        model.layers[0].set_weights([2 * weight for weight in model.layers[0].get_weights()])
        np.testing.assert_allclose(scored(model), model.predict(X, verbose=0)[:, 0], rtol=1e-5)


def ending(index, rows):
    from kspark.worker.memory import end_after_task

    end_after_task()
    yield from facts(index, rows)


def test_workers_end_after_their_tasks_without_a_failure(spark):
    expected = fitted(spark)
    engine = engine_of(spark)
    ended = {process for process, *_ in engine.collect(engine.on_every_slot(ending, 2), None)}
    assert len(ended) > 1
    assert ended.isdisjoint(workers(spark))
    assert fitted(spark) == expected
