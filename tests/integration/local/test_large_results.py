"""Results that are larger than a record of a Spark job, with a small limit."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.cluster import records


def weights_after(**settings):
    """The weights of a model, and those of its optimizer, after a short fit."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    SparkModel(model, seed=1, **settings).fit(x, x[:, :1], epochs=1, batch_size=8, verbose=0)
    arrays = [*model.get_weights(), *map(keras.ops.convert_to_numpy, model.optimizer.variables)]
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize(
    "settings",
    [{"num_workers": 2, "road": "rounds"}, {"num_workers": 1, "mode": "asynchronous"}],
    ids=["rounds", "asynchronous"],
)
def test_deltas_and_optimizer_states_arrive_in_pieces_with_the_same_bytes(
    spark, monkeypatch, settings
):
    expected = weights_after(**settings)
    monkeypatch.setattr(records, "LARGEST_RECORD", 100)
    pieces, joined = [], records.joined

    def noticed(given):
        given = list(given)
        pieces.extend(record for record in given if isinstance(record, records.Piece))
        return joined(given)

    monkeypatch.setattr("kspark.cluster.engine.joined", noticed)
    assert weights_after(**settings) == expected
    assert pieces
    assert max(len(piece.data) for piece in pieces) <= 100
