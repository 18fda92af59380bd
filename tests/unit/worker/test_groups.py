"""Sums of groups of shards, as the tasks of the second stage make them; without Spark."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.compression import Compressor, Packing
from kspark.compression import get as codec
from kspark.errors import Failure
from kspark.shards import ShardFacts
from kspark.weights import (
    PACKED,
    STATE,
    TRAINABLE,
    Changes,
    Weight,
    WeightSpec,
    Whole,
    weighted_mean,
)
from kspark.worker.groups import Grouping, StateMean, by_group, merge_group, of_groups
from kspark.worker.tasks import MissingShard, ShardResult

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE), Weight("m", (1,), "float32", STATE)))
WHOLE = Whole(SPEC)


def facts_of(shard):
    return ShardFacts("host", 1, shard + 1, 0.5, 8, True, 0.0, 0, 0)


def result(shard, values, rows, state=None):
    delta = np.array(values, "f4")
    return ShardResult(shard, rows, delta, [np.array(rows)], facts_of(shard), state=state)


def merged(grouping, results, packing=WHOLE, order=None):
    """What all groups give, with the records in the order in which a shuffle brings them."""
    pairs = list(by_group(grouping, 0, results))
    pairs = pairs if order is None else [pairs[i] for i in order]
    return [
        next(merge_group(grouping, packing, i, [p for p in pairs if p[0] == i]))
        for i in range(len(grouping.groups))
    ]


# -- groups ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (4, [2, 2]), (16, [4, 4, 4, 4]), (17, [3, 3, 4, 3, 4]), (64, [8] * 8)],
)
def test_as_many_groups_as_the_root_of_the_shards(count, sizes):
    grouping = Grouping.of(dict.fromkeys(range(count), 3))
    assert [len(group) for group in grouping.groups] == sizes
    assert [shard for group in grouping.groups for shard in group] == list(range(count))


@given(st.integers(1, 3000))
def test_groups_are_few_and_small(count):
    groups = Grouping.of(dict.fromkeys(range(count), 1)).groups
    assert len(groups) == math.isqrt(count - 1) + 1
    assert 1 <= min(map(len, groups)) <= max(map(len, groups)) <= len(groups)


def test_only_shards_of_groups_that_are_wanted_train():
    """Handles are read to their end all the same."""
    grouping = Grouping.of({0: 5, 1: 5, 2: 0, 3: 5, 4: 5})
    for shard, expected in enumerate([[], [], [], [b"handle"], [b"handle"]]):
        handles = iter([b"handle"])
        assert list(of_groups(grouping, frozenset({1}), shard, handles)) == expected
        assert next(handles, None) is None


def test_shards_without_examples_are_in_no_group():
    grouping = Grouping.of({3: 5, 0: 2, 1: 0, 2: 7})
    assert grouping.groups == ({0: 2}, {2: 7, 3: 5})
    assert grouping.number == {0: 0, 2: 1, 3: 1}
    assert list(by_group(grouping, 0, [ShardResult(1, 0)])) == []


# -- means -----------------------------------------------------------------------------------------


def test_a_group_is_the_mean_by_examples():
    grouping = Grouping.of({0: 1, 1: 3, 2: 2, 3: 2})
    shards = [
        result(3, [0, 4, 8], 2),
        result(0, [4, 0, 8], 1),
        result(1, [8, 4, 0], 3),
        result(2, [2, 2, 2], 2),
    ]
    first, second = merged(grouping, shards)
    assert (first.number, first.delta.tolist(), first.delta_examples) == (0, [7, 3, 2], 4)
    assert (second.number, second.delta.tolist(), second.delta_examples) == (1, [1, 3, 5], 4)
    assert first.delta.dtype == np.float32
    assert [part.shard for part in second.parts] == [2, 3]
    assert [part.facts.batches for part in first.parts] == [1, 2]
    assert [int(part.metrics[0]) for part in first.parts] == [1, 3]
    assert all(part.delta is None for part in (*first.parts, *second.parts))
    assert (first.state, first.state_examples) == (None, 0)


counts = st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any)


@given(counts, st.randoms(use_true_random=False))
def test_means_of_groups_are_the_mean_of_all(counts, random):
    deltas = np.random.default_rng(random.randrange(2**32)).normal(size=(len(counts), 3))
    shards = [result(i, d, n) for i, (d, n) in enumerate(zip(deltas, counts, strict=True)) if n]
    grouping = Grouping.of(dict(enumerate(counts)))
    groups = merged(grouping, shards)
    assert sum(group.delta_examples for group in groups) == sum(counts)
    both = weighted_mean((group.delta, group.delta_examples) for group in groups)
    expected = np.average(deltas, axis=0, weights=counts)
    np.testing.assert_allclose(both, expected, rtol=1e-5, atol=1e-6)


@given(st.permutations(range(9)))
def test_whoever_comes_first_the_bytes_are_the_same(order):
    random = np.random.default_rng(5)
    state = [([random.normal(size=2).astype("f4")], [np.array(i)]) for i in range(9)]
    shards = [result(i, random.normal(size=3), i + 1, state[i]) for i in range(9)]
    grouping = Grouping.of({i: i + 1 for i in range(9)})
    one, other = merged(grouping, shards), merged(grouping, shards, order=order)
    for left, right in zip(one, other, strict=True):
        assert left.delta.tobytes() == right.delta.tobytes()
        assert left.state[0][0].tobytes() == right.state[0][0].tobytes()
        assert left.state[1] == right.state[1]
        assert [part.shard for part in left.parts] == [part.shard for part in right.parts]


@pytest.mark.parametrize("name", ["float16", "int8"])
def test_compressed_deltas_are_unpacked_before_they_are_added(name):
    packing = Packing(codec(name), SPEC)
    deltas = [np.array([0.5, -1.0, 3.0], "f4"), np.array([2.0, 1.0, 1.0], "f4")]
    shards = [ShardResult(i, 1, Compressor(packing).pack(d)) for i, d in enumerate(deltas)]
    grouping = Grouping(({0: 1, 1: 1},))
    for order in ([0, 1], [1, 0]):
        (group,) = merged(grouping, shards, packing, order)
        np.testing.assert_allclose(group.delta, [1.25, 0.0, 2.0], atol=0.02)
        assert group.delta[2] == 2.0  # state travels as it is


def test_what_no_shard_changed_does_not_travel_on():
    table = Weight("embeddings", (5000, 4), "float32", TRAINABLE)
    changes = Changes.of(WeightSpec((table,)))
    deltas = np.zeros((3, 20_000), "f4")
    deltas[0, 400], deltas[1, 400], deltas[2, 19_999] = 1.0, 3.0, 8.0
    grouping = Grouping(({0: 1, 1: 1, 2: 2},))
    shards = [ShardResult(i, grouping.groups[0][i], changes.pack(d)) for i, d in enumerate(deltas)]
    shards[1] = replace(shards[1], delta=deltas[1])  # one that would be no smaller travels as it is
    (group,) = merged(grouping, shards, changes)
    assert (group.delta.dtype, group.delta.size < 1000) == (PACKED, True)
    mean = changes.unpack(group.delta, np.empty(20_000, "f4"))
    assert (mean[400], mean[19_999], np.count_nonzero(mean)) == (1.0, 4.0, 2)


# -- state -----------------------------------------------------------------------------------------


def a_state(steps, momentum, seed):
    return [np.array(steps), np.array(momentum, "f4")], [np.array(seed)]


def test_floating_state_is_averaged_and_everything_else_is_the_first_ones():
    mean = StateMean()
    assert mean.result() is None
    mean.add(a_state(7, [1, 2], 3), 1)
    mean.add(a_state(9, [5, 6], 4), 3)
    (steps, momentum), (seed,) = mean.result()
    assert (int(steps), momentum.tolist(), int(seed), mean.total) == (7, [4, 5], 3, 4)
    assert momentum.dtype == np.float32


def test_bfloat16_state_is_averaged():
    import ml_dtypes

    mean = StateMean()
    for value in (1, 2):
        mean.add(([np.full(2, value, ml_dtypes.bfloat16)], []), 1)
    (momentum,), _ = mean.result()
    assert momentum.tolist() == [1.5, 1.5]


def test_states_of_groups_are_those_of_all():
    """Also where one was lost with its host, and where they come with no delta at all."""
    grouping = Grouping(({0: 2, 1: 1, 2: 1}, {3: 4}))
    states = {2: a_state(5, [8, 0], 12), 3: a_state(6, [4, 4], 13), 1: a_state(7, [0, 8], 11)}
    groups = merged(grouping, [ShardResult(s, 99, state=state) for s, state in states.items()])
    assert [group.state_examples for group in groups] == [2, 4]
    assert [group.delta for group in groups] == [None, None]
    mean = StateMean()
    for group in groups:
        mean.add(group.state, group.state_examples)
    (steps, momentum), (seed,) = mean.result()
    assert (int(steps), int(seed)) == (7, 11)  # shard 1's
    np.testing.assert_allclose(momentum, [4, 4], rtol=1e-6)


# -- when something is wrong -----------------------------------------------------------------------


def test_failures_and_missing_shards_go_with_their_group():
    grouping = Grouping.of({0: 1, 1: 1, 2: 1, 3: 1})
    failure = Failure(2, "host", 0, "ValueError", "a mistake", "")
    missing = MissingShard(1, "there", "here")
    first, second = merged(grouping, [failure, result(0, [1, 1, 1], 1), missing])
    assert [part.shard for part in first.parts] == [0, 1]
    assert first.parts[1] is missing
    assert second.parts == (failure,)
    assert (second.delta, second.delta_examples) == (None, 0)


def test_what_is_no_ones_is_not_lost():
    failure = Failure(7, "host", 0, "ValueError", "a mistake", "")
    assert list(by_group(Grouping(({0: 1},)), 0, [failure])) == [(0, failure)]
