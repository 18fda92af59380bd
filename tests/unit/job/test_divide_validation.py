"""`divide_validation`: how many rows of each shard are held out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.job.preparing import divide_validation


@pytest.mark.parametrize(
    ("counts", "fraction", "train"),
    [
        ({0: 10}, 0.0, {0: 10}),
        ({0: 10}, 0.25, {0: 7}),  # as Keras: int(10 * 0.75) = 7 train
        ({0: 50, 1: 50}, 0.1, {0: 45, 1: 45}),
        ({0: 30, 1: 10}, 0.5, {0: 15, 1: 5}),
        ({0: 3, 1: 3, 2: 3}, 0.34, {0: 1, 1: 2, 2: 2}),  # 4 held out, one each and one left
        ({0: 1, 1: 8}, 0.34, {0: 1, 1: 4}),  # 4 * 8/9 = 3.56 has the larger remainder
        ({0: 0, 1: 4}, 0.25, {0: 0, 1: 3}),
        ({}, 0.5, {}),
    ],
)
def test_held_out_rows_by_hand(counts, fraction, train):
    assert divide_validation(counts, fraction) == train


counts_of_shards = st.dictionaries(st.integers(0, 20), st.integers(0, 5000), min_size=1)


@given(counts_of_shards, st.floats(0, 0.999))
def test_as_many_are_held_out_as_keras_would_and_spread_by_size(counts, fraction):
    total = sum(counts.values())
    train = divide_validation(counts, fraction)
    held_out = {shard: counts[shard] - train[shard] for shard in counts}
    # Keras trains on the first int(math.floor(n * (1.0 - validation_split))) examples.
    assert sum(train.values()) == int(np.floor(total * (1.0 - fraction)))
    assert all(0 <= held_out[s] <= counts[s] for s in counts)
    for shard, n in counts.items():
        exact = Fraction(n * sum(held_out.values()), total or 1)
        assert abs(held_out[shard] - exact) < 1
