"""The batches that shards train in an epoch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.plan import ShardSteps, TrainingPlan, shard_steps

sizes = st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any)


def steps(rows, **plan):
    made = TrainingPlan.create(**plan)
    return shard_steps(made, dict(enumerate(rows)))


def test_without_steps_an_epoch_is_one_pass():
    made = steps([10, 0, 3], batch_size=4)
    assert made == {0: ShardSteps(10, 4, 3), 2: ShardSteps(3, 4, 1)}
    assert list(made[0].ranges(5)) == [(5, 0, 3)]
    assert made[0].num_examples(5) == 10


def test_an_epoch_goes_on_where_the_one_before_stopped():
    one = ShardSteps(rows=10, batch_size=4, batches=2)  # batches of 4, 4 and 2 rows
    assert [list(one.ranges(epoch)) for epoch in range(3)] == [
        [(0, 0, 2)],
        [(0, 2, 3), (1, 0, 1)],
        [(1, 1, 3)],
    ]
    assert [one.num_examples(epoch) for epoch in range(3)] == [8, 6, 6]


def test_an_epoch_may_be_several_passes():
    one = ShardSteps(rows=5, batch_size=4, batches=5)
    assert list(one.ranges(0)) == [(0, 0, 2), (1, 0, 2), (2, 0, 1)]
    assert one.num_examples(0) == 14


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 30), st.integers(1, 6))
def test_all_epochs_together_are_the_sequence_of_passes(rows, batch_size, batches, epochs):
    one = ShardSteps(rows, batch_size, batches)
    found = [
        (number, i)
        for epoch in range(epochs)
        for number, start, stop in one.ranges(epoch)
        for i in range(start, stop)
    ]
    per_pass = -(-rows // batch_size)
    assert found == [divmod(i, per_pass) for i in range(epochs * batches)]


@given(sizes, st.integers(0, 100))
def test_steps_are_divided_by_rows_and_every_shard_trains(rows, more):
    filled = [n for n in rows if n]
    total = len(filled) + more
    made = steps(rows, steps_per_epoch=total)
    assert sum(one.batches for one in made.values()) == total
    assert set(made) == {shard for shard, n in enumerate(rows) if n}
    for one in made.values():
        assert abs(one.batches - 1 - more * one.rows / sum(rows)) < 1


def test_equal_shards_get_equal_steps():
    assert [one.batches for one in steps([9, 9, 9], steps_per_epoch=7).values()] == [3, 2, 2]


def test_fewer_steps_than_shards_are_refused():
    with pytest.raises(ValueError, match="`steps_per_epoch` must be >= 2, .*steps_per_epoch=1"):
        steps([9, 0, 9], steps_per_epoch=1)


@pytest.mark.parametrize("name", ["steps_per_epoch", "validation_steps"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (2.5, TypeError), (True, TypeError)])
def test_steps_are_whole_numbers(name, value, error):
    with pytest.raises(error, match=f"`{name}` must be an integer >= 1. Received: {name}={value}"):
        TrainingPlan.create(**{name: value})
