"""A replica gets the same batches from windows of sparse rows as from those of arrays."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import Replica
from kspark.shards import Chunk, Shard, SparseRows, Window, num_batches, spool

ROWS, WIDTH, SIZE = 50, 300, 4


def a_model(metrics=("mae",)):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers])
    model.compile("adam", "mse", metrics=list(metrics))
    return model


@pytest.fixture(scope="module")
def x():
    random = np.random.default_rng(0)
    values = random.normal(size=(ROWS, WIDTH)).astype(np.float32)
    return np.where(random.random((ROWS, WIDTH)) < 0.02, values, np.float32(0))


@pytest.fixture(scope="module")
def y(x):
    return x[:, :2] + 1


def windows(rows, y, folder, *, several):
    """Shuffled windows of a shard on disk: one, or several of 12 rows."""
    handle = spool([Chunk([rows], [y])], 0, "run", directory=str(folder))
    shard = Shard.open(handle)
    nbytes = int(np.ceil(12 * shard.row_bytes)) if several else None
    found = list(shard.windows(SIZE, rng=np.random.default_rng(5), window_bytes=nbytes))
    assert len(found) == (5 if several else 1)
    return found


def train(replica, window):
    replica.train(window, SIZE)


def exchange(replica, window):
    stops = range(1, num_batches(window.num_examples, SIZE) + 1, 2)
    replica.train_exchanging(window, SIZE, 0, stops, lambda vector, count: vector / count)


def merge(replica, window):
    last = num_batches(window.num_examples, SIZE)
    replica.train_merging(window, SIZE, 0, last, lambda vector, count: vector / 2)


def evaluate(replica, window):
    replica.evaluate(window, SIZE)


@pytest.mark.parametrize("work", [train, exchange, merge, evaluate])
@pytest.mark.parametrize("several", [False, True])
def test_work_on_sparse_windows_gives_the_same_bytes(x, y, tmp_path, work, several):
    found = []
    for rows in (x, SparseRows.of(x)):
        replica = Replica.of(a_model())
        replica.part_bytes = 2 * SIZE * (x[0].nbytes + y[0].nbytes)
        for window in windows(rows, y, tmp_path, several=several):
            assert isinstance(window.x[0], type(rows))
            replica.check_gradient_merging(window, SIZE)
            work(replica, window)
        state = [replica.get_vector(), *replica.metric_state()]
        found.append([array.tobytes() for array in state])
    assert found[0] == found[1]


def test_predictions_of_sparse_rows_are_those_of_the_array_in_batches_that_fit(x):
    replica = Replica.of(a_model())
    sizes, engine_predict = [], replica._engine.predict

    def predict(window, batch_size):
        sizes.append((batch_size, len(window.x[0])))
        return engine_predict(window, batch_size)

    replica._engine.predict = predict
    expected = replica.model.predict(x, verbose=0)
    for limit, batch_size in ((3 * x[0].nbytes, 3), (1, 1), (1 << 30, 32)):
        replica.part_bytes = limit
        (found,) = replica.predict(Window([SparseRows.of(x)]), 32)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert {size for size, _ in sizes} == {batch_size}
        assert max(rows for _, rows in sizes) * x[0].nbytes <= max(limit, x[0].nbytes)
        sizes.clear()
