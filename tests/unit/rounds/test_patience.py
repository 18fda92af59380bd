"""When a round has waited long enough; times are made up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.rounds.patience import Patience

ALL = range(5)


def test_a_round_waits_for_more_than_half_of_the_shards():
    patience = Patience(5, ALL, 10.0)
    for now, running in ((0.0, {0, 1, 2, 3, 4}), (500.0, {1, 2, 3, 4}), (900.0, {2, 3, 4})):
        assert patience.seconds_left(running, now) == math.inf


def test_the_timeout_starts_when_more_than_half_have_arrived():
    patience = Patience(5, ALL, 10.0)
    assert patience.seconds_left({3, 4}, 900.0) == 10.0
    assert patience.seconds_left({3, 4}, 904.0) == 6.0
    assert patience.seconds_left({4}, 907.5) == 2.5  # one that comes gives the others no more time
    assert patience.seconds_left({4}, 910.0) == 0.0
    assert patience.seconds_left({4}, 999.0) == 0.0


def test_a_round_is_over_when_all_have_arrived():
    assert Patience(5, ALL, 10.0).seconds_left((), 3.0) == 0.0


@pytest.mark.parametrize(("num_shards", "running", "over"), [(2, 1, False), (3, 1, True)])
def test_half_is_not_more_than_half(num_shards, running, over):
    patience = Patience(num_shards, range(num_shards), 1.0)
    patience.seconds_left(range(running), 0.0)
    assert (patience.seconds_left(range(running), 5.0) == 0.0) == over


def test_shards_of_earlier_rounds_are_not_waited_for():
    patience = Patience(5, {0, 1, 2}, 10.0)
    assert patience.seconds_left({2, 3, 4}, 0.0) == math.inf
    assert patience.seconds_left({2, 3}, 1.0) == 10.0  # shard 4 came, late, and counts
    assert patience.seconds_left({3}, 2.0) == 0.0


def test_shards_of_earlier_rounds_are_waited_for_if_half_are_missing():
    assert Patience(5, {0, 1}, 10.0).seconds_left({2, 3, 4}, 99.0) == math.inf


def test_the_last_round_waits_for_all():
    patience = Patience(5, {0, 1, 2, 3}, None)
    assert patience.seconds_left({4}, 0.0) == patience.seconds_left({4}, 1e9) == math.inf
    assert patience.seconds_left((), 1e9) == 0.0


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)), st.permutations(range(n)))
    ),
    st.floats(0.1, 100),
)
def test_a_round_ends_with_more_than_half_of_the_shards(shards, timeout):
    count, started, order = shards
    patience, running, now = Patience(count, started, timeout), set(range(count)), 0.0
    for shard in order:
        while 0 < patience.seconds_left(running, now) < math.inf:
            now += timeout / 3
        if patience.seconds_left(running, now) == 0:
            break
        running.discard(shard)
        now += 1
    assert 2 * len(running) < count
