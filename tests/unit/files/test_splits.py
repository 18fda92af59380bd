"""Row groups are divided in order, evenly by rows, and cut only where they must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.files.footers import RowGroup
from kspark.files.listing import DataFile
from kspark.files.paths import Resolved
from kspark.files.splits import TOLERANCE, divide, first_rows


def groups_of(sizes):
    """Files with row groups of the given sizes."""
    files = [DataFile(Resolved("", str(i))) for i in range(len(sizes))]
    groups = [
        RowGroup(i, number, rows, 8 * rows)
        for i, per_file in enumerate(sizes)
        for number, rows in enumerate(per_file)
    ]
    return files, groups


def read(files, groups, shards):
    """The numbers of the rows that each shard reads, among the rows of all files."""
    starts = np.cumsum([0, *(group.rows for group in groups)])
    first = {(g.file, g.number): starts[i] for i, g in enumerate(groups)}
    size = {(g.file, g.number): g.rows for g in groups}
    found = []
    for pieces in shards:
        rows = []
        for piece in pieces:
            file = files.index(piece.file)
            inside = [first[file, n] + i for n in piece.groups for i in range(size[file, n])]
            rows += inside[piece.skip : piece.skip + piece.rows]
            assert len(inside) - size[file, piece.groups[-1]] < piece.skip + piece.rows
            assert piece.skip < size[file, piece.groups[0]]
        found.append(rows)
    return found


@given(
    st.lists(st.lists(st.integers(1, 30), max_size=4), min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_each_row_is_read_once_in_order_and_shards_are_even(sizes, count):
    files, groups = groups_of(sizes)
    total = sum(map(sum, sizes))
    shards = divide(files, groups, count)
    found = read(files, groups, shards)
    assert len(shards) == count
    assert [row for rows in found for row in rows] == list(range(total))
    slack = 2 * TOLERANCE * total / count + 1
    assert all(abs(len(rows) - total / count) <= slack for rows in found)


def test_row_groups_are_not_cut_where_shards_are_about_even_without():
    files, groups = groups_of([[10] * 40 + [3]])
    shards = divide(files, groups, 4)
    assert [(piece.skip, piece.rows) for (piece,) in shards] == [(0, 100)] * 3 + [(0, 103)]
    assert shards[1][0].groups == tuple(range(10, 20))


def test_one_row_group_is_divided_by_ranges_of_rows():
    files, groups = groups_of([[10]])
    pieces = [piece for (piece,) in divide(files, groups, 3)]
    assert [(p.groups, p.skip, p.rows) for p in pieces] == [
        ((0,), 0, 3),
        ((0,), 3, 3),
        ((0,), 6, 4),
    ]


def test_row_groups_that_are_left_out_end_a_piece():
    files, groups = groups_of([[5, 5, 5]])
    (shard,) = divide(files, [groups[0], groups[2]], 1)
    assert [piece.groups for piece in shard] == [(0,), (2,)]


def test_more_shards_than_rows_leave_some_empty():
    files, groups = groups_of([[1, 1]])
    assert sorted(len(shard) for shard in divide(files, groups, 4)) == [0, 0, 1, 1]
    assert divide(files, [], 2) == [(), ()]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (7, [5, 2]), (99, [5, 5])])
def test_the_first_rows(count, sizes):
    _, groups = groups_of([[5], [5]])
    assert [group.rows for group in first_rows(groups, count)] == sizes
