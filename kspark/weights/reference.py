"""Track changed blocks of vectors for receivers that have an earlier vector."""

from __future__ import annotations

import threading

import numpy as np

from kspark.weights.layout import Layout

MAX_WHOLE = 32
"""Vectors in a row without an unchanged block, after which comparing stops."""


class Reference:
    """Tracks in which blocks a sequence of vectors changes. Several threads may use it.

    Each vector is compared with the one noted before it, and each block has the moment at which it
    last changed. A receiver that has the vector of an earlier moment needs only the blocks that
    changed since then, because all other blocks are equal in all vectors between the two.

    Comparing vectors also finds changes that no replica sent, such as rows that the momentum of a
    server optimizer moves, or weights that a callback sets.

    Args:
        layout: `Layout`.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._last: np.ndarray | None = None
        self._changed_at = np.zeros(layout.num_blocks, np.int64)
        self._moment = 0
        self._whole_in_a_row = 0
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether comparing has stopped, so that all later vectors are sent whole."""
        return self._whole_in_a_row >= MAX_WHOLE

    def note(self, vector: np.ndarray, since: int | None) -> tuple[int, np.ndarray | None]:
        """Note a vector before it is sent to a receiver.

        Args:
            vector: Vector of `layout.size` elements. It must not change during the call.
            since: Integer, the moment of the vector that the receiver has, or `None`.

        Returns:
            Tuple of the moment of this vector, and a boolean array of the blocks to send, or
            `None` to send the whole vector.
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
                self._whole_in_a_row = 0
                return self._moment, changed
            self._whole_in_a_row += 1
            if self._whole_in_a_row == MAX_WHOLE:
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
    """Return a copy of an earlier vector, with the changed blocks of a payload.

    Raises:
        ProtocolError: If the payload does not fit the layout.
    """
    whole = vector.copy()
    layout.decode(payload, whole)
    return whole
