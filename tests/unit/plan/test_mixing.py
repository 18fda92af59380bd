"""Which rows go to which shard when rows are mixed; values only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.plan import Mixing, TrainingPlan, mixed_sizes
from kspark.plan.mixing import check_mixing

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=6).map(lambda n: dict(enumerate(n)))


def numbers(mixing, shard, pieces):
    """The rows of a shard by mixed shard and part, if they are dealt in pieces."""
    found, start = {}, 0
    for count in pieces:
        for target, part, chosen in mixing.dealt(shard, start, count):
            rows = np.arange(start, start + count)[chosen].tolist()
            found.setdefault((target, part), []).extend(rows)
        start += count
    return found


@given(COUNTS, st.integers(1, 4), st.data())
def test_every_row_is_dealt_once_and_shards_get_equally_many(num_train, parts, data):
    mixing, sizes = Mixing(3, 1, num_train, parts), dict.fromkeys(num_train, 0)
    for shard, count in num_train.items():
        cut = data.draw(st.integers(0, count))
        found = numbers(mixing, shard, [count])
        assert numbers(mixing, shard, [cut, count - cut]) == found
        assert sorted(row for rows in found.values() for row in rows) == list(range(count))
        shares = [sum(len(r) for (t, _), r in found.items() if t == k) for k in num_train]
        assert max(shares) - min(shares) <= 1  # of each shard, each new one gets its share
        for target, share in enumerate(shares):
            sizes[target] += share
    assert sizes == mixed_sizes(num_train)
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_the_sizes_after_mixing():
    assert mixed_sizes({0: 5, 1: 0, 2: 3}) == {0: 3, 1: 3, 2: 2}
    assert mixed_sizes({0: 1, 1: 0}) == {0: 1, 1: 0}
    assert mixed_sizes({0: 0, 1: 8}) == {0: 4, 1: 4}


def test_rows_are_dealt_in_turn_where_the_shard_before_has_stopped():
    mixing = Mixing(0, 0, {0: 4, 1: 5, 2: 0})
    assert numbers(mixing, 0, [4]) == {(0, 0): [0, 3], (1, 0): [1], (2, 0): [2]}
    assert numbers(mixing, 1, [5]) == {(0, 0): [2], (1, 0): [0, 3], (2, 0): [1, 4]}
    halves = Mixing(0, 0, {0: 4, 1: 5}, parts=2)
    assert numbers(halves, 1, [5]) == {(0, 0): [0, 4], (1, 0): [1], (0, 1): [2], (1, 1): [3]}


def test_seed_period_shard_and_part_decide_the_order():
    def order(rng):
        return tuple(rng.permutation(50))

    def orders(*of):
        made = Mixing(*of, {0: 9, 1: 9}, parts=2)
        plan = TrainingPlan.create(seed=of[0])
        return [
            *(order(made.reading(shard)) for shard in (0, 1)),
            *(order(made.writing(shard, part)) for shard in (0, 1) for part in (0, 1)),
            *(order(plan.generator(shard, of[1])) for shard in (0, 1)),
        ]

    assert orders(5, 2) == orders(5, 2)
    assert len({*orders(5, 2), *orders(5, 3), *orders(6, 2)}) == 24


def test_periods_are_counted_from_epoch_0():
    for first in (0, 3):
        plan = TrainingPlan.create(reshuffle=2, epochs=6, initial_epoch=first)
        assert [plan.period(epoch) for epoch in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [TrainingPlan.create(reshuffle="epoch").period(e) for e in (0, 1)] == [0, 1]
    assert TrainingPlan.create(reshuffle=np.int64(3)).reshuffle == 3
    assert TrainingPlan.create().period(7) == 0


@pytest.mark.parametrize("value", [0, -1, "batch", True, False, 1.5, [1], ""])
def test_other_values_are_refused(value):
    with pytest.raises(ValueError, match=r'`reshuffle` must be None, "epoch" or an integer >= 1'):
        check_mixing(value, None, None)


@pytest.mark.parametrize(
    ("more", "where"),
    [({"steps_per_epoch": 4}, "`steps_per_epoch`"), ({"straggler_timeout": 2.0}, "late shard")],
)
def test_arguments_that_exclude_mixing_are_refused(more, where):
    with pytest.raises(ValueError, match=rf"`reshuffle` must be None with .*{where}"):
        TrainingPlan.create(reshuffle="epoch", **more)
