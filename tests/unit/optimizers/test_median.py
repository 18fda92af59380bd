from __future__ import annotations

import numpy as np
import pytest

from kspark.errors import AggregationError
from kspark.optimizers import Median


def vectors(*rows: list[float]) -> list[np.ndarray]:
    return [np.array(row, "float32") for row in rows]


def test_the_median_is_taken_per_coordinate():
    merged = Median().reduce(vectors([1, 9, 5], [2, 7, -5], [3, 8, 0]), [1, 1, 1])
    np.testing.assert_array_equal(merged, [2, 8, 0])


def test_an_even_number_of_deltas_gives_the_mean_of_the_middle_two():
    merged = Median().reduce(vectors([1, 0, 0], [2, 0, 4], [4, 0, 8], [99, 0, 16]), [1] * 4)
    np.testing.assert_array_equal(merged, [3, 0, 6])


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7])
def test_the_median_equals_that_of_numpy(count):
    rows = list(np.random.default_rng(count).normal(size=(count, 40_000)).astype("float32"))
    np.testing.assert_allclose(Median().reduce(rows, [1] * count), np.median(rows, 0), rtol=1e-6)


def test_numbers_of_examples_do_not_weight_the_median():
    merged = Median().reduce(vectors([1, 1, 1], [2, 2, 2], [3, 3, 3]), [1, 1, 1000])
    np.testing.assert_array_equal(merged, [2, 2, 2])


def test_empty_shards_are_ignored():
    merged = Median().reduce(vectors([0, 0, 0], [1, 2, 3], [0, 0, 0]), [0, 5, 0])
    np.testing.assert_array_equal(merged, [1, 2, 3])
    with pytest.raises(AggregationError, match="no delta has examples"):
        Median().reduce(vectors([1, 2, 3]), [0])


@pytest.mark.parametrize("bad", [1e30, -np.inf, np.nan])
def test_a_minority_cannot_move_the_median_out_of_the_range_of_the_others(bad):
    rows = vectors([1, 1, 1], [2, 2, 2], [3, 3, 3], [bad, -bad, bad], [-bad, bad, bad])
    merged = Median().reduce(rows, [1] * 5)
    assert ((merged >= 1) & (merged <= 3)).all()


def test_the_median_is_added(applied):
    weights = applied(Median(), [1, -2, 3], weights=(1, 1, 1), mode="synchronous")
    np.testing.assert_array_equal(weights, [2, -1, 4])


def test_the_deltas_are_not_modified():
    rows = vectors([3, 1, 2], [1, 2, 3], [2, 3, 1])
    Median().reduce(rows, [1, 1, 1])
    np.testing.assert_array_equal(rows, [[3, 1, 2], [1, 2, 3], [2, 3, 1]])
