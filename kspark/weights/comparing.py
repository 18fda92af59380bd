"""Which rows of integers are others than they were."""

from __future__ import annotations

import numpy as np

from kspark.weights.arithmetic import PIECE, pieces

FEW_COLUMNS = 8
"""So many passes over a column cost as much as one over all rows."""

SAMPLE = 256
"""Rows that are looked at first: if all of these changed, so will the others have."""


def compare_rows(rows: np.ndarray, others: np.ndarray | None, out: np.ndarray) -> None:
    """Which rows of integers differ from others, or from zero.

    Where nearly all do, some that do not may be taken for such that do.
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
    """The same, of each single row."""
    step = max(1, PIECE // rows.shape[1])
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        differing = rows[piece] != (0 if others is None else others[piece])
        any_in_rows(np.ascontiguousarray(differing), out[piece])


def any_in_rows(truths: np.ndarray, out: np.ndarray) -> None:
    """Which rows of a contiguous boolean matrix hold anything true.

    `np.any` takes as long for a short row as for some hundred truths. Several of them at a
    time, as one integer, the columns of a table of embeddings are few.
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
    """Whether any of some integers differs from another one, or from zero."""
    for piece in pieces(values.size):
        if np.any(values[piece] != (0 if others is None else others[piece])):
            return True
    return False
