"""Vectors of which the receiver has an earlier one."""

from __future__ import annotations

import threading

import numpy as np

from kspark.changes.layout import Layout


class Reference:
    """A vector that later ones are told apart from. For many threads.

    It is the first vector that is noted. A block counts as changed if it differed in any
    vector since then. So whoever holds one of these vectors, whichever it is, has any later
    one when the blocks that changed until then are written over it: all others are as they
    were in the first.

    Comparing also finds what nobody sent: rows that a server optimizer's momentum moves
    on, weights that a callback sets. When so much has changed that nothing is saved any
    more, that is the end of it.

    Args:
        layout: `Layout`.

    Attributes:
        base: The first vector, or `None`: before it was noted, and when nothing is saved.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.base: np.ndarray | None = None
        self._changed = np.zeros(layout.num_blocks, bool)
        self._over = False
        self._lock = threading.Lock()

    def note(self, vector: np.ndarray) -> np.ndarray | None:
        """Take in a vector, before anybody is given it.

        Args:
            vector: Vector of `layout.size` elements, which nobody changes meanwhile.

        Returns:
            Boolean array, the blocks of it to send to whom has an earlier one; or `None`
            if all of it is to be sent, now and from now on.
        """
        with self._lock:
            if self._over:
                return None
            if self.base is None:
                self.base = vector.copy()
            base = self.base
        changed = self.layout.changed(vector, base)  # which takes long: not in the lock
        with self._lock:
            self._changed = self._changed | changed
            if self.layout.payload_size(self._changed) >= self.layout.nbytes:
                self._over, self.base = True, None
            return None if self._over else self._changed


def completed(layout: Layout, vector: np.ndarray, payload: np.ndarray) -> np.ndarray:
    """A later vector: a copy of an earlier one, and what changed written over it.

    Raises:
        ProtocolError: If it is no payload of this layout.
    """
    whole = vector.copy()
    layout.decode(payload, whole)
    return whole
