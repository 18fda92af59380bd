"""A large embedding and a frozen layer on `local[2]`: the same weights, with few bytes."""

import os

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.cluster.engine import ClassicEngine

ROWS, WIDTH, LOOKED_UP = 50_000, 16, 200
EPOCHS, BATCH, EXAMPLES = 3, 25, 400
ROADS = [
    ("synchronous", "epoch", 2, "rounds"),
    ("synchronous", "epoch", 2, "live"),
    ("asynchronous", 4, 1, "auto"),
    pytest.param("synchronous", "batch", 2, "auto", marks=pytest.mark.thorough),
    # So many shards are summed in groups.
    pytest.param("synchronous", "epoch", 16, "auto", marks=pytest.mark.thorough),
]


@keras.saving.register_keras_serializable("tests")
class Lookup(keras.layers.Layer):
    """An embedding whose table is a matrix, or the same values as one flat vector."""

    def __init__(self, flat, **more):
        super().__init__(**more)
        self.flat = flat

    def build(self, _):
        shape = (ROWS * WIDTH,) if self.flat else (ROWS, WIDTH)
        self.table = self.add_weight(shape=shape, initializer="random_uniform", name="table")

    def call(self, ids):
        table = keras.ops.reshape(self.table, (ROWS, WIDTH))
        return keras.ops.mean(keras.ops.take(table, ids, axis=0), axis=1)

    def get_config(self):
        return {**super().get_config(), "flat": self.flat}


def made(flat):
    """3.2 MB of embeddings, 0.8 MB of a frozen layer, 52 kB of a trained one."""
    keras.utils.set_random_seed(5)
    frozen = keras.layers.Dense(13_000, activation="tanh", trainable=False, name="frozen")
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), Lookup(flat), frozen, keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    random = np.random.default_rng(2)
    values = [random.uniform(-0.05, 0.05, w.shape).astype("f4") for w in model.get_weights()]
    values[0] = random.uniform(-0.05, 0.05, ROWS * WIDTH).astype("f4").reshape(values[0].shape)
    model.set_weights(values)
    return model


def trained(mode, frequency, workers, road, flat):
    random = np.random.default_rng(0)
    ids = random.integers(0, ROWS, LOOKED_UP)[random.integers(0, LOOKED_UP, (EXAMPLES, 4))]
    targets = (ids % 7).mean(axis=1, keepdims=True).astype("f4")
    spark_model = SparkModel(made(flat), mode, frequency, num_workers=workers, road=road, seed=1)
    spark_model.fit(ids.astype("int32"), targets, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return spark_model


def exchanged(spark_model):
    """Bytes of the second epoch. In the first one all weights travel once; the last is longer."""
    return sum(w["bytes_sent"] + w["bytes_received"] for w in spark_model.last_fit.workers[1])


@pytest.fixture
def shared(monkeypatch):
    """All that is broadcast."""
    broadcasts, share = [], ClassicEngine.share
    monkeypatch.setattr(
        ClassicEngine, "share", lambda self, v: broadcasts.append(share(self, v)) or broadcasts[-1]
    )
    return broadcasts


@pytest.mark.parametrize(("mode", "frequency", "workers", "road"), ROADS)
def test_only_changed_weights_are_sent(spark, shared, mode, frequency, workers, road):
    """The flat table is sent whole. The weights have the same bytes, and no broadcast is left."""
    small, large = (trained(mode, frequency, workers, road, flat) for flat in (False, True))
    weights, others = (m.master_network.get_weights() for m in (small, large))
    assert [w.tobytes() for w in weights] == [w.tobytes() for w in others]
    start = made(flat=False).get_weights()
    moved = np.flatnonzero((weights[0] != start[0]).any(axis=1))
    assert 0 < moved.size <= LOOKED_UP
    assert weights[1].tobytes() == start[1].tobytes()
    exchanges = {"epoch": workers, "batch": workers * 8 + 1, 4: 4}[frequency]
    table, frozen = 4 * ROWS * WIDTH, start[1].nbytes
    # With "batch", one replica reports its optimizer state, two numbers for each weight.
    state = 2 * 4 * (small.master_network.count_params() - frozen // 4) * (frequency == "batch")
    assert exchanged(small) - state < 0.05 * exchanges * 2 * (table + frozen)
    assert exchanged(large) - state > exchanges * 2 * table
    in_rounds = small.last_fit.road == "rounds"
    assert len(shared) == (8 if in_rounds else 2)  # a model each, and three rounds
    assert not any(os.path.exists(broadcast._path) for broadcast in shared)
