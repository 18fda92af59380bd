"""A window that is trained in pieces gives the same bytes as one that is trained at once."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from kspark.replica import Replica
from kspark.replica.backends.tensorflow_rows import Rows

BATCHES, SIZE = 11, 4
PIECES = [(0, 1), (1, 3), (3, 7), (7, BATCHES)]


def a_model(run_eagerly):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=run_eagerly)
    return model


def train(replica, window, pieces):
    for start, stop in pieces:
        replica.train(window, SIZE, start, stop)


def exchange_in_the_middle(replica, window, pieces):
    """Exchange after batches 5 and 11. Stops where pieces end change nothing."""
    for start, stop in pieces:
        due = [s for s in (5, BATCHES) if start < s <= stop]
        answers = iter([*(True for _ in due), False])

        def exchange(vector, count, answers=answers):
            return vector / 2 if next(answers) else None

        stops = due if stop in due else [*due, stop]
        replica.train_exchanging(window, SIZE, start, stops, exchange)


def merge_gradients(replica, window, pieces):
    for start, stop in pieces:
        replica.train_merging(window, SIZE, start, stop, lambda vector, count: vector / 2)


@pytest.mark.parametrize("loop", [train, exchange_in_the_middle, merge_gradients])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_pieces_change_no_byte(loop, run_eagerly, window_of, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((42, 3), np.float32), rng.random((42, 2), np.float32)
    window = replace(window_of(x, y, order=rng.permutation(42)), key=None)
    converted, convert = [], Rows.of
    monkeypatch.setattr(Rows, "of", lambda rows: converted.append(rows) or convert(rows))
    found = []
    for pieces in ([(0, BATCHES)], PIECES):
        replica = Replica.of(a_model(run_eagerly))
        converted.clear()
        loop(replica, window, pieces)
        state = [replica.get_vector(), *replica.get_optimizer_state(), *replica.get_fixed()]
        found.append([array.tobytes() for array in (*state, *replica.metric_state())])
        assert len(converted) == 1  # the rows become tensors once
    assert found[0] == found[1]
