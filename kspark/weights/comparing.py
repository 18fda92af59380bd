"""Find the rows of integers that differ from other rows."""

from __future__ import annotations

import numpy as np

from kspark.weights.arithmetic import PIECE, pieces

FEW_COLUMNS = 8
"""Columns up to which one pass per column is faster than `np.any` over the rows."""

SAMPLE = 256
"""Rows that are compared first. If all of them changed, all rows count as changed."""


def compare_rows(rows: np.ndarray, others: np.ndarray | None, out: np.ndarray) -> None:
    """Find the rows that differ from `others`, or from zero if `others` is `None`.

    If nearly all rows differ, rows that do not may be reported too.

    Args:
        rows: Matrix of integers.
        others: Matrix of the same shape, or `None`.
        out: Boolean vector to write into, one element per row.
    """
    if len(rows) == 1:
        out[0] = differs(rows[0], None if others is None else others[0])
        return
    if len(rows) > SAMPLE:
        some = slice(None, None, -(-len(rows) // SAMPLE))
        found = np.empty(len(rows[some]), bool)
        compare_pieces(rows[some], None if others is None else others[some], found)
        if found.all():
            out[:] = True
            return
    compare_pieces(rows, others, out)


def compare_pieces(rows: np.ndarray, others: np.ndarray | None, out: np.ndarray) -> None:
    """Compare as `compare_rows` does, but every row."""
    step = max(1, PIECE // rows.shape[1])
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        differing = rows[piece] != (0 if others is None else others[piece])
        any_in_rows(np.ascontiguousarray(differing), out[piece])


def any_in_rows(truths: np.ndarray, out: np.ndarray) -> None:
    """Find the rows of a contiguous boolean matrix that contain `True`.

    `np.any` takes as long for a short row as for a row of some hundred elements. Viewed as
    integers of several elements each, a row of a typical embedding has few columns, which are
    faster to combine column by column.
    """
    width = truths.shape[1]
    word = next(size for size in (8, 4, 2, 1) if width % size == 0)
    if width > FEW_COLUMNS * word:
        np.any(truths, axis=1, out=out)
        return
    words = truths.view(f"u{word}")
    found = words[:, 0]
    for column in range(1, words.shape[1]):
        found = found | words[:, column]
    np.not_equal(found, 0, out=out)


def differs(values: np.ndarray, others: np.ndarray | None) -> bool:
    """Whether any integer differs from that of `others`, or from zero if `others` is `None`."""
    for piece in pieces(values.size):
        if np.any(values[piece] != (0 if others is None else others[piece])):
            return True
    return False
