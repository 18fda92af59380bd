"""The work of a shard."""

from __future__ import annotations

import pytest

from kspark.live.coordinator import ShardPlan


@pytest.mark.parametrize(
    ("batches", "local", "found"),
    [(7, 3, [3, 3, 1, 3, 3, 1]), (4, 4, [4, 4]), (2, 1, [1, 1, 1]), (5, 99, [5, 5])],
)
def test_a_push_has_the_batches_since_the_one_before(batches, local, found):
    plan = ShardPlan(10, -(-batches // local), batches, min(local, batches))
    assert [plan.batches_of(sequence + 1) for sequence in range(len(found))] == found


def test_without_batches_they_are_counted_by_examples():
    assert ShardPlan(10, 3).batches_of(2) == 0
