"""Deltas and weighted means, by hand and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.weights import (
    WeightedMean,
    apply_delta,
    compute_delta,
    mean_in_order,
    weighted_mean,
)
from kspark.weights.arithmetic import PIECE

floats = st.floats(-1e3, 1e3, width=32)


def vectors(size: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, size, elements=floats)


def test_delta_is_new_minus_old():
    new, old = np.array([3, 5], "float32"), np.array([1, 7], "float32")
    assert compute_delta(new, old).tolist() == [2, -2]
    assert compute_delta(new, old, out=new) is new
    assert new.tolist() == [2, -2]


def test_apply_delta_works_in_place_and_scales():
    weights, change = np.array([1, 2], "float32"), np.array([4, -8], "float32")
    apply_delta(weights, change)
    assert weights.tolist() == [5, -6]
    apply_delta(weights, change, 0.25)
    assert weights.tolist() == [6, -8]
    assert weights.dtype == np.float32
    assert change.tolist() == [4, -8]


@pytest.mark.parametrize(
    "other", [np.zeros(3, "float32"), np.zeros(1, "float32"), np.zeros(2), np.zeros((2, 1), "f4")]
)
def test_nothing_is_broadcast_or_cast(other):
    vector = np.ones(2, "float32")
    with pytest.raises(IncompatibleDeltaError, match="do not match"):
        compute_delta(vector, other)
    with pytest.raises(IncompatibleDeltaError, match="do not match"):
        apply_delta(vector, other)
    assert vector.tolist() == [1, 1]


pairs_of_vectors = st.lists(
    st.tuples(vectors(3), st.floats(0, 1e4)), min_size=1, max_size=6
).filter(lambda pairs: sum(w for _, w in pairs) > 1e-3)


def test_mean_by_hand():
    pairs = [(np.array([1, 0], "f4"), 1), (np.array([4, 4], "f4"), 2), (np.array([8, 8], "f4"), 1)]
    assert weighted_mean(pairs).tolist() == [4.25, 4.0]


@given(pairs_of_vectors)
def test_mean_equals_numpys(pairs):
    expected = np.average([v for v, _ in pairs], axis=0, weights=[w for _, w in pairs])
    mean = weighted_mean(pairs)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-6)


@given(vectors(4), st.lists(st.integers(1, 60_000), min_size=1, max_size=7))
def test_mean_of_identical_vectors_is_that_vector_to_the_bit(vector, counts):
    assert weighted_mean((vector, n) for n in counts).tobytes() == (vector + 0.0).tobytes()


def test_what_weighs_nothing_adds_nothing_not_even_nan():
    mean = WeightedMean()
    mean.add(np.array([np.nan, 1], "f4"), 0)
    mean.add(np.array([2, 3], "f4"), 5)
    assert mean.result().tolist() == [2, 3]
    assert (mean.total, mean.count) == (5, 1)


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(AggregationError, match="must be finite and >= 0. Received: weight="):
        WeightedMean().add(np.ones(1), weight)


def test_nothing_to_average_is_an_error():
    with pytest.raises(AggregationError, match="nothing to average"):
        weighted_mean([(np.ones(2), 0)])


def test_other_shapes_are_refused():
    mean = WeightedMean()
    mean.add(np.ones(2, "f4"), 1)
    with pytest.raises(IncompatibleDeltaError, match=r"\(1,\) does not match shape \(2,\)"):
        mean.add(np.ones(1, "f4"), 1)
    assert mean.result().tolist() == [1, 1]


def test_sums_in_float64():
    """In float32, 2**24 + 1 is 2**24."""
    pairs = [(np.array([2.0**24], "f4"), 1), *[(np.array([1.0], "f4"), 1)] * 4]
    assert weighted_mean(pairs).tolist() == [np.float32((2**24 + 4) / 5)]


def test_adding_does_not_change_what_is_added():
    vector = np.array([1, 2], "f4")
    mean = WeightedMean()
    mean.add(vector, 3)
    mean.add(vector, 3)
    assert vector.tolist() == [1, 2]


def test_mean_in_order_of_nothing_is_an_error():
    with pytest.raises(AggregationError, match="nothing to average"):
        mean_in_order([(np.ones(1, "f4"), 0)])


def test_mean_in_order_leaves_out_who_weighs_nothing_and_keeps_the_dtype():
    mean = mean_in_order([(np.array([np.nan], "f2"), 0), (np.array([2.0], "f2"), 1)])
    assert (mean.tolist(), mean.dtype) == ([2.0], np.float16)


def test_mean_in_order_writes_to_its_own_vector_only():
    first, out = np.array([2, 4], "f4"), np.zeros(2, "f4")
    assert mean_in_order([(first, 1), (np.array([4, 8], "f4"), 1)], out) is out
    assert (first.tolist(), out.tolist()) == ([2, 4], [3, 6])


@given(st.integers(0, 3), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_mean_in_order_has_the_bytes_of_the_sum_in_this_order(whole_pieces, counts):
    size, total = whole_pieces * PIECE + 5, sum(counts)
    vectors = np.random.default_rng(0).normal(size=(len(counts), size)).astype("f4")
    expected = vectors[0] * np.float32(counts[0] / total)
    for vector, count in zip(vectors[1:], counts[1:], strict=True):
        expected += vector * np.float32(count / total)
    assert mean_in_order(zip(vectors, counts, strict=True)).tobytes() == expected.tobytes()
