"""Divide row groups among shards, in order and evenly by rows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from kspark.files.footers import RowGroup
from kspark.files.listing import DataFile

TOLERANCE = 0.05
"""By which part of a shard a bound may differ from an even one, so that it cuts no row group. A
task that begins inside of a row group must decode, but not keep, the rows before."""


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one file.

    Attributes:
        file: `DataFile`.
        groups: Tuple of integers, consecutive row groups that contain the rows.
        skip: Integer, rows to leave out at the start of the first of these row groups.
        rows: Integer, number of rows.
    """

    file: DataFile
    groups: tuple[int, ...]
    skip: int
    rows: int


def divide(
    files: Sequence[DataFile], groups: Sequence[RowGroup], count: int
) -> list[tuple[Piece, ...]]:
    """Divide all rows among shards.

    Args:
        files: Sequence of `DataFile`.
        groups: Sequence of `RowGroup` in the order of the files and rows.
        count: Integer >= 1, number of shards.

    Returns:
        List of one tuple of `Piece` per shard; it is empty for a shard without rows.
    """
    ends = list(accumulate(group.rows for group in groups))
    cuts = bounds(ends, count)
    return [
        cut(files, groups, ends, start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)
    ]


def bounds(ends: Sequence[int], count: int) -> list[int]:
    """Return the bounds of the shards as numbers of rows: even ones, or the end of a row group."""
    total = ends[-1] if ends else 0
    slack = TOLERANCE * total / count
    found = [0]
    for shard in range(1, count):
        even = shard * total // count
        at = bisect_left(ends, even)
        near = min(ends[max(0, at - 1) : at + 1], key=lambda end: abs(end - even), default=even)
        found.append(near if abs(near - even) <= slack else even)
    return [*found, total]


def cut(
    files: Sequence[DataFile],
    groups: Sequence[RowGroup],
    ends: Sequence[int],
    start: int,
    stop: int,
) -> tuple[Piece, ...]:
    """Return the pieces of rows `[start, stop)` of all rows."""
    pieces: list[Piece] = []
    for at in range(bisect_right(ends, start), bisect_left(ends, stop) + 1 if start < stop else 0):
        group, begin = groups[at], ends[at] - groups[at].rows
        low, high = max(start, begin), min(stop, ends[at])
        last = pieces[-1] if pieces else None
        follows = last is not None and last.file is files[group.file]
        if last is not None and follows and last.groups[-1] + 1 == group.number:
            groups_of = (*last.groups, group.number)
            pieces[-1] = Piece(last.file, groups_of, last.skip, last.rows + high - low)
        else:
            pieces.append(Piece(files[group.file], (group.number,), low - begin, high - low))
    return tuple(pieces)


def first_rows(groups: Sequence[RowGroup], count: int) -> list[RowGroup]:
    """Return row groups of the first rows; the last one counts fewer rows than it has."""
    found, left = [], count
    for group in groups:
        if left <= 0:
            break
        rows = min(left, group.rows)
        found.append(RowGroup(group.file, group.number, rows, group.nbytes * rows // group.rows))
        left -= rows
    return found
