"""Vectors of which the receiver has an earlier one."""

from __future__ import annotations

import threading

import numpy as np

from kspark.weights.layout import Layout

PATIENCE = 32
"""So many vectors in a row of which nothing could be left out, and nobody compares any more."""


class Reference:
    """Vectors that many receivers are given, one after the other. For many threads.

    Each vector is compared with the one that was noted before it, and each block keeps the
    moment at which it last changed. Whoever holds the vector of some moment has a later one
    when the blocks that changed since then are written over it: all others were the same at
    each step between the two.

    Comparing also finds what nobody sent: rows that a server optimizer's momentum moves
    on, weights that a callback sets.

    Args:
        layout: `Layout`.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._last: np.ndarray | None = None
        self._changed_at = np.zeros(layout.num_blocks, np.int64)
        self._moment = 0
        self._in_vain = 0
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether vectors are sent whole from now on, and nobody needs to keep any."""
        return self._in_vain >= PATIENCE

    def note(self, vector: np.ndarray, since: int | None) -> tuple[int, np.ndarray | None]:
        """Take in a vector, before somebody is given it.

        Args:
            vector: Vector of `layout.size` elements, which nobody changes meanwhile.
            since: Integer, the moment of the vector that the receiver holds; `None` if it
                holds none.

        Returns:
            Tuple: the moment of this vector, and a boolean array, the blocks of it to send;
            or `None` if all of it is to be sent.
        """
        with self._lock:
            if self.over:
                return self._moment, None
            self._moment += 1
            self._compare(vector)
            if since is None:
                return self._moment, None
            changed = self._changed_at > since
            if self.layout.payload_size(changed) < self.layout.nbytes:
                self._in_vain = 0
                return self._moment, changed
            self._in_vain += 1
            if self._in_vain == PATIENCE:
                self._last = None
            return self._moment, None

    def _compare(self, vector: np.ndarray) -> None:
        if self._last is None:
            self._last = vector.copy()
            return
        changed = self.layout.changed(vector, self._last)
        self._changed_at[changed] = self._moment
        self.layout.decode(self.layout.encode(vector, changed), self._last)


def completed(layout: Layout, vector: np.ndarray, payload: np.ndarray) -> np.ndarray:
    """A later vector: a copy of an earlier one, and what changed written over it.

    Raises:
        ProtocolError: If it is no payload of this layout.
    """
    whole = vector.copy()
    layout.decode(payload, whole)
    return whole
