"""Arrays of shards come in any order, and are handed on in one."""

from __future__ import annotations

import os

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.worker.in_order import InOrder


@pytest.fixture(autouse=True)
def local_dirs(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("local")
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{folder},/nowhere")
    return folder


def add_all(held, pairs):
    with held:
        for shard, arrays in pairs:
            held.add(shard, arrays)


def handed_on(arrivals, awaited):
    seen = []
    held = InOrder(awaited, lambda shard, arrays: seen.append((shard, arrays)))
    add_all(held, ((s, [np.full(3, s, "f4"), np.array(s)]) for s in arrivals))
    assert all(a.tolist() == [s] * 3 and int(b) == s for s, (a, b) in seen)
    return [shard for shard, _ in seen]


@given(st.permutations([2, 3, 5, 7, 11]))
def test_whatever_the_order(arrivals):
    assert handed_on(arrivals, [11, 7, 5, 3, 2]) == [2, 3, 5, 7, 11]


def test_those_behind_one_that_does_not_come_are_handed_on_at_the_end():
    assert handed_on([7, 5, 2], [2, 3, 5, 7]) == [2, 5, 7]


def test_nobody_waits_longer_than_necessary():
    seen = []
    with InOrder([0, 1, 2], lambda shard, arrays: seen.append(shard)) as arrays:
        for shard, expected in ((1, []), (0, [0, 1]), (2, [0, 1, 2])):
            arrays.add(shard, [])
            assert seen == expected


def test_arrays_that_waited_are_what_they_were(local_dirs):
    given = [
        np.arange(6, dtype="f8").reshape(2, 3).T,  # not contiguous
        np.array(7),
        np.empty((0, 4), "f4"),
        np.array([True, False]),
        np.array(["a", "bcd"]),
        np.array([1.5, -2.0], ml_dtypes.bfloat16),
    ]
    seen = []
    with InOrder([0, 1], lambda shard, arrays: seen.append(arrays)) as arrays:
        arrays.add(1, given)
        assert os.listdir(local_dirs) == []  # a file without a name
        arrays.add(0, [])
    for before, after in zip(given, seen[1], strict=True):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        np.testing.assert_array_equal(before, after)


def test_after_an_error_nothing_more_is_handed_on():
    def arrays():
        yield 1, [np.zeros(2)]
        raise KeyError

    seen = []
    held = InOrder([0, 1], lambda shard, _: seen.append(shard))
    with pytest.raises(KeyError):
        add_all(held, arrays())
    assert seen == []
