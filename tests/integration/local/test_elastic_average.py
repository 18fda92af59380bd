"""Synchronous elastic averaging on `local[2]`, compared with the paper's equations in NumPy."""

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.optimizers import ElasticAverage

RATE, RHO, BATCH, EPOCHS = 0.05, 0.75, 4, 3


def by_the_paper(shards, start, local):
    """The centre after equations 5 and 6, with plain SGD on a mean squared error between rounds.

    Every shard is (x, y); a shard's spring is RHO times its part of the examples.
    """
    total = sum(len(y) for _, y in shards)
    centre, replicas = start.copy(), [start.copy() for _ in shards]
    for _ in range(EPOCHS):
        rounds = max(-(-len(y) // (local * BATCH)) for _, y in shards)
        for number in range(rounds):
            pulls = np.zeros_like(centre)
            for (x, y), w in zip(shards, replicas, strict=True):
                first, last = number * local * BATCH, min((number + 1) * local * BATCH, len(y))
                if first >= last:
                    continue
                for i in range(first, last, BATCH):
                    xs, ys = x[i : min(i + BATCH, last)], y[i : min(i + BATCH, last)]
                    w -= RATE * 2 * xs.T @ (xs @ w - ys) / len(ys)
                pull = RHO * len(y) / total * (w - centre)
                w -= pull
                pulls += pull
            centre += pulls
    return centre


@pytest.mark.parametrize(("frequency", "local"), [("epoch", 100), (2, 2)])
def test_the_merged_weights_equal_the_centre_of_the_paper(spark, frequency, local):
    random = np.random.default_rng(0)
    x = random.normal(size=(36, 3)).astype("float32")
    y = x @ np.array([1.0, -2.0, 3.0], "float32")
    shards = [(x[:22], y[:22]), (x[22:], y[22:])]  # three and two rounds an epoch
    rows = [list(zip(*shard, strict=True)) for shard in shards]
    rdd = spark.sparkContext.parallelize(rows, 2).flatMap(lambda part: part)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(RATE), "mse")
    start = model.get_weights()[0][:, 0].astype("f8")
    rule = ElasticAverage(RHO)
    spark_model = SparkModel(model, "synchronous", frequency, server_optimizer=rule)
    spark_model.fit(rdd, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0)
    expected = by_the_paper(shards, start, local)
    np.testing.assert_allclose(model.get_weights()[0][:, 0], expected, rtol=0, atol=1e-5)
