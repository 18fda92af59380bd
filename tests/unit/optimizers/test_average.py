from __future__ import annotations

import numpy as np
import pytest

from kspark.errors import AggregationError
from kspark.optimizers import Average


def test_a_merged_delta_is_added(applied):
    weights = applied(Average(), [1, -2, 0.5], weights=(1, 1, 1), mode="synchronous")
    np.testing.assert_array_equal(weights, [2, -1, 1.5])


@pytest.mark.parametrize("mode", ["asynchronous", "hogwild"])
def test_a_push_is_scaled_by_its_share(applied, mode):
    weights = applied(Average(), [4, -8, 2], weights=(1, 1, 1), mode=mode, share=0.25)
    np.testing.assert_array_equal(weights, [2, -1, 1.5])


def test_pushes_of_all_shards_add_up_to_the_round(applied):
    deltas, counts = [[3, 0, -6], [6, 3, 9]], [10, 20]
    rule = Average()
    pushed = (0.0, 0.0, 0.0)
    for delta, count in zip(deltas, counts, strict=True):
        pushed = applied(rule, delta, weights=tuple(pushed), share=count / 30)
    np.testing.assert_allclose(pushed, [5, 2, 4], rtol=1e-6)
    vectors = [np.array(delta, "float32") for delta in deltas]
    np.testing.assert_array_equal(rule.reduce(vectors, counts), [5, 2, 4])


def test_a_round_is_the_mean_weighted_by_examples():
    deltas = [np.array(d, "float32") for d in ([1, 0, 2], [4, 8, -2])]
    merged = Average().reduce(deltas, [1, 3])
    np.testing.assert_array_equal(merged, [3.25, 6, -1])
    np.testing.assert_array_equal(merged, np.average(deltas, axis=0, weights=[1, 3]))


def test_a_delta_of_no_examples_weighs_nothing():
    deltas = [np.array(d, "float32") for d in ([1, 2, 3], [np.nan, 9, 9])]
    np.testing.assert_array_equal(Average().reduce(deltas, [5, 0]), [1, 2, 3])


def test_a_round_without_examples_is_refused():
    with pytest.raises(AggregationError, match="nothing to average"):
        Average().reduce([np.ones(3, "float32")], [0])


def test_every_delta_needs_its_number_of_examples():
    with pytest.raises(ValueError, match="zip"):
        Average().reduce([np.ones(3, "float32")] * 2, [1])
