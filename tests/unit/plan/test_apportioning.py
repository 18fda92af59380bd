"""Whole numbers are divided by weights."""

from __future__ import annotations

import pytest

from kspark.plan.apportioning import apportioned


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (7, {0: 1, 1: 1, 2: 1}, {0: 3, 1: 2, 2: 2}),  # equal remainders: the first shards
        (4, {0: 1, 1: 8}, {0: 0, 1: 4}),
        (3, {2: 5, 5: 0}, {2: 3, 5: 0}),
        (0, {0: 4}, {0: 0}),
        (2, {0: 0}, {0: 0}),
        (2, {}, {}),
    ],
)
def test_parts_are_in_proportion_and_add_up(total, weights, parts):
    assert apportioned(total, weights) == parts
