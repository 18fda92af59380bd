"""Which rows of integers are others than they were."""

from __future__ import annotations

import numpy as np

PIECE = 32 * 1024
"""Elements that are compared at once: their temporaries stay in the processor's cache."""


def compare_rows(rows: np.ndarray, others: np.ndarray | None, out: np.ndarray) -> None:
    """Which rows of integers differ from others, or from zero."""
    if len(rows) == 1:
        out[0] = differs(rows[0], None if others is None else others[0])
        return
    step = max(1, PIECE // rows.shape[1])
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        differing = rows[piece] != (0 if others is None else others[piece])
        np.any(differing, axis=1, out=out[piece])


def differs(values: np.ndarray, others: np.ndarray | None) -> bool:
    """Whether any of some integers differs from another one, or from zero."""
    for start in range(0, values.size, PIECE):
        piece = slice(start, start + PIECE)
        if np.any(values[piece] != (0 if others is None else others[piece])):
            return True
    return False
