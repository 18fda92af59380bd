"""Results that are larger than a record of a Spark job."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.cluster.records import Piece, cut, cut_results, joined
from kspark.worker.tasks import ShardResult

LARGEST = 10


def same(a, b):
    assert (a.shard, a.num_examples) == (b.shard, b.num_examples)
    for one, other in zip([a.delta, *a.metrics], [b.delta, *b.metrics], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@given(st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=3), max_size=5))
def test_large_and_small_results_come_back_in_their_order(sizes):
    given_ = [
        ShardResult(k, n[0], np.arange(n[0], dtype="u1"), [np.ones(m, "u1") for m in n[1:]])
        for k, n in enumerate(sizes)
    ]
    records = list(cut_results(LARGEST, lambda index, rows: iter(given_), 0, None))
    for record in records:
        if isinstance(record, Piece):
            assert len(record.data) <= LARGEST
        else:
            assert record.delta.nbytes + sum(m.nbytes for m in record.metrics) <= LARGEST
    for a, b in zip(joined(records), given_, strict=True):
        same(a, b)


@pytest.mark.parametrize(("size", "pieces"), [(10, 0), (11, 2), (20, 2), (21, 3), (40, 4)])
def test_an_array_is_cut_when_it_is_larger_than_a_record(size, pieces):
    array = np.arange(size, dtype="u1")
    records = list(cut(array, LARGEST))
    if not pieces:
        assert records == [array] or records[0] is array
        return
    ends = [n for n, record in enumerate(records) if record.ends]
    assert ends[-1] - ends[-2] == pieces
    assert [record.last for record in records] == [False] * (len(records) - 1) + [True]
    assert joined(records)[0].tolist() == array.tolist()


def test_a_joined_array_can_be_changed():
    (array,) = joined(cut(np.zeros(40, "f4"), LARGEST))
    array += 1
    assert array.tolist() == [1] * 40
