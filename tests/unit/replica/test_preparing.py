"""Rows that are prepared batch by batch train to the same bytes as rows that were prepared before.

The oracle is a replica that gets the prepared arrays.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import Replica
from kspark.replica.preparing import CarriedExchange, Part, batch_rows, prepared
from kspark.shards import Chunk, Window

ROWS, SIZE = 42, 4
BATCHES = 11
ROW_BYTES = 4 * (3 + 2)


class Sparse:
    """Rows as a stand-in for a sparse matrix: they can be chosen, and made dense."""

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, rows):
        return Sparse(self._rows[rows])

    def toarray(self):
        return self._rows


def a_model(metrics=("mae",)):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("adam", "mse", metrics=list(metrics))
    return model


class Halving:
    """A preparation that divides features by two, and remembers its calls."""

    def __init__(self):
        self.told = []

    def applies(self, *, training):
        return True

    def seed(self, value):
        self.told.append(value)

    def __call__(self, chunk, number, *, training):
        self.told.append((number, training, chunk.num_examples))
        return Chunk([a / np.float32(2) for a in chunk.x], chunk.y, chunk.sample_weight)


def train(replica, window):
    replica.train(window, SIZE)


def train_a_part(replica, window):
    replica.train(window, SIZE, 2, 9)


def exchange_at_some(replica, window):
    counts = []

    def exchange(vector, count):
        counts.append(count)
        return vector / 2

    replica.train_exchanging(window, SIZE, 1, [2, 7, BATCHES], exchange)
    assert counts == [4, 20, 14]


def exchange_at_all(replica, window):
    replica.train_exchanging(window, SIZE, 0, range(1, BATCHES + 1), lambda v, n: v / 2)


def merge_gradients(replica, window):
    replica.train_merging(window, SIZE, 0, BATCHES, lambda vector, count: vector / 2)


def evaluate(replica, window):
    replica.evaluate(window, SIZE)


def bytes_of(replica):
    state = [replica.get_vector(), *replica.get_optimizer_state(), *replica.get_fixed()]
    return [array.tobytes() for array in (*state, *replica.metric_state())]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.random((ROWS, 3), np.float32), rng.random((ROWS, 2), np.float32)


@pytest.mark.parametrize(("max_batches", "in_order"), [(1, True), (3, False)])
@pytest.mark.parametrize(
    "use", [train, train_a_part, exchange_at_some, exchange_at_all, merge_gradients, evaluate]
)
def test_prepared_rows_give_the_same_bytes(use, in_order, max_batches, arrays):
    x, y = arrays
    order = None if in_order else np.random.default_rng(1).permutation(ROWS)
    oracle, replica = Replica.of(a_model()), Replica.of(a_model())
    replica.preparation = Halving()
    replica.part_bytes = max_batches * SIZE * ROW_BYTES
    use(oracle, Window([x / 2], [y], order=order))
    use(replica, Window([x], [y], order=order))
    assert bytes_of(replica) == bytes_of(oracle)


@pytest.mark.parametrize("part_bytes", [1, 1 << 20])
def test_prepared_rows_give_the_same_predictions_and_loss(part_bytes, arrays):
    x, y = arrays
    oracle, replica = Replica.of(a_model()), Replica.of(a_model())
    replica.preparation, replica.part_bytes = Halving(), part_bytes
    (expected,) = oracle.predict(Window([x / 2]), SIZE)
    (found,) = replica.predict(Window([x]), SIZE)
    np.testing.assert_array_equal(found, expected)
    assert replica.loss(Window([x], [y])) == oracle.loss(Window([x / 2], [y]))
    assert len(replica.predict(Window([x[:0]]), SIZE)[0]) == 0


def test_sparse_rows_become_dense_batch_by_batch(arrays):
    x, y = arrays
    oracle, replica = Replica.of(a_model()), Replica.of(a_model())
    oracle.train(Window([x], [y]), SIZE)
    replica.train(Window([Sparse(x)], [y]), SIZE)
    assert bytes_of(replica) == bytes_of(oracle)
    np.testing.assert_array_equal(
        replica.predict(Window([Sparse(x)]), SIZE)[0], oracle.predict(Window([x]), SIZE)[0]
    )


def test_checks_of_metrics_and_loss_prepare_the_rows(arrays):
    x, y = arrays
    replica = Replica.of(a_model([keras.metrics.MeanAbsoluteError()]))
    replica.preparation = Halving()
    replica.check_summable(Window([x], [y]), SIZE)
    replica.check_gradient_merging(Window([x], [y]), SIZE)


def test_training_is_told_apart_from_evaluation(arrays):
    x, y = arrays
    replica, preparation = Replica.of(a_model()), Halving()
    replica.preparation, told = preparation, preparation.told
    replica.evaluate(Window([x[:6]], [y[:6]]), SIZE)
    assert told[-2:] == [(0, False, 4), (1, False, 2)]
    replica.train(Window([x[:6]], [y[:6]], first_batch=7), SIZE)
    assert told[-2:] == [(7, True, 4), (8, True, 2)]
    replica.seed_backend(5)
    assert told[-1] == 5


def test_parts_are_bounded_and_cover_all_batches():
    window = Window([np.arange(20, dtype=np.float64)], first_batch=5)
    parts = list(prepared(window, 3, 1, 7, lambda chunk, _: chunk, 2 * 3 * 8))
    assert [(p.skipped, p.stop, p.window.first_batch) for p in parts] == [
        (1, 2, 6),
        (3, 2, 8),
        (5, 2, 10),
    ]
    np.testing.assert_array_equal(np.concatenate([p.window.x[0] for p in parts]), range(3, 20))


def test_a_batch_larger_than_the_limit_is_a_part():
    window = Window([np.zeros((4, 100))])
    parts = list(prepared(window, 2, 0, 2, lambda chunk, _: chunk, 1))
    assert [p.window.num_examples for p in parts] == [2, 2]


def test_batches_of_other_shapes_begin_a_new_part():
    def padded(chunk, number):
        return Chunk([np.zeros((chunk.num_examples, 1 + number // 2))])

    parts = list(prepared(Window([np.zeros(10)]), 2, 0, 5, padded, 1 << 20))
    assert [p.window.x[0].shape for p in parts] == [(4, 1), (4, 2), (2, 3)]


def test_preparing_a_batch_in_place_leaves_the_window_alone():
    x = np.ones(6)
    chunk = batch_rows(Window([x]), 4, 1)
    assert chunk.num_examples == 2
    chunk.x[0] += 1
    assert x.tolist() == [1] * 6


def test_examples_are_carried_to_the_next_exchange():
    seen = []
    carried = CarriedExchange(lambda vector, count: seen.append(count), [5])
    first, second = Part(Window([np.zeros(6)]), 0, 3, 1), Part(Window([np.zeros(2)]), 0, 1, 4)
    assert carried.stops_of(first) == [3]
    carried(np.zeros(1), 6)
    assert seen == []
    assert carried.stops_of(second) == [1]
    carried(np.zeros(1), 2)
    assert seen == [8]
