from __future__ import annotations

import numpy as np
import pytest

from kspark.errors import AggregationError
from kspark.optimizers import TrimmedMean


def vectors(*rows: list[float]) -> list[np.ndarray]:
    return [np.array(row, "float32") for row in rows]


def test_the_largest_and_smallest_values_are_trimmed():
    rows = vectors([1, 50, 5], [2, 6, -70], [6, 4, 3], [90, -10, 1])
    merged = TrimmedMean(0.25).reduce(rows, [1] * 4)
    np.testing.assert_array_equal(merged, [4, 5, 2])


def test_the_remaining_values_are_averaged():
    rows = vectors([0, 0, 0], [1, 2, 3], [2, 4, 6], [6, 6, 9], [99, 99, 99])
    merged = TrimmedMean(0.2).reduce(rows, [1] * 5)
    np.testing.assert_array_equal(merged, [3, 4, 6])


@pytest.mark.parametrize(
    ("beta", "count", "expected"),
    [
        (0.2, 1, 0),
        (0.2, 2, 0),
        (0.2, 3, 1),
        (0.2, 5, 1),
        (0.2, 6, 2),
        (0.07, 100, 7),
        (0.49, 3, 1),
        (0.49, 4, 1),
        (0.01, 64, 1),
    ],
)
def test_the_trimmed_number_is_rounded_up_and_leaves_a_value(beta, count, expected):
    assert TrimmedMean(beta).num_trimmed(count) == expected


def test_the_result_equals_the_mean_of_sorted_values():
    rows = np.random.default_rng(3).normal(size=(10, 40_000)).astype("float32")
    merged = TrimmedMean(0.3).reduce(list(rows), [1] * 10)
    np.testing.assert_allclose(merged, np.sort(rows, 0)[3:7].mean(0), rtol=1e-4, atol=1e-6)
    assert merged.dtype == np.float32


def test_numbers_of_examples_do_not_weight_and_empty_shards_are_ignored():
    rows = vectors([1, 1, 1], [2, 2, 2], [3, 3, 3], [-9, -9, -9])
    np.testing.assert_array_equal(TrimmedMean().reduce(rows, [1, 1, 1000, 0]), [2, 2, 2])
    with pytest.raises(AggregationError, match="no delta has examples"):
        TrimmedMean().reduce(rows, [0] * 4)


def test_every_delta_needs_its_number_of_examples():
    with pytest.raises(ValueError, match="zip"):
        TrimmedMean().reduce(vectors([1, 1, 1], [2, 2, 2]), [1])


@pytest.mark.parametrize("bad", [1e30, -np.inf, np.nan])
def test_one_bad_replica_cannot_move_the_mean_out_of_the_range_of_the_others(bad):
    merged = TrimmedMean(0.1).reduce(vectors([1, 1, 1], [bad, -bad, 0], [3, 3, 3]), [1] * 3)
    assert ((merged >= 1) & (merged <= 3)).all()


def test_the_mean_is_summed_in_double_precision():
    rows = vectors([1e8] * 3, [1.0] * 3, [1.0] * 3, [-1e8] * 3, [1e9] * 3, [-1e9] * 3)
    np.testing.assert_array_equal(TrimmedMean(0.1).reduce(rows, [1] * 6), [0.5] * 3)


def test_the_mean_is_added(applied):
    weights = applied(TrimmedMean(), [1, -2, 3], weights=(1, 1, 1), mode="synchronous")
    np.testing.assert_array_equal(weights, [2, -1, 4])


@pytest.mark.parametrize("beta", [0, 0.5, -0.1])
def test_wrong_arguments_are_refused(beta):
    with pytest.raises(ValueError, match="`beta` must be a number > 0 and < 0.5"):
        TrimmedMean(beta)
