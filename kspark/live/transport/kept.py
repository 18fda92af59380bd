"""The weights that a replica keeps, so that an answer may contain only the changed blocks."""

from __future__ import annotations

import numpy as np

from kspark.errors import ProtocolError
from kspark.live.wire import Kind, Message
from kspark.weights import Layout


class Kept:
    """A copy of the whole weights of the last answer. See `kspark.weights.Reference`.

    It is a copy because callers change the vectors that they receive into.

    Args:
        layout: `Layout` of the weights, or `None` to keep nothing.
    """

    def __init__(self, layout: Layout | None) -> None:
        self.layout = layout
        self._weights: np.ndarray | None = None

    def take(self, message: Message, out: np.ndarray) -> None:
        """Keep the weights of a message, or complete changed blocks to whole weights.

        Args:
            message: `Message` of kind `VECTOR_KEPT` or `VECTOR_CHANGED`, received into `out`.
            out: Vector; overwritten with the whole weights.

        Raises:
            ProtocolError: If changed blocks do not fit the kept weights.
        """
        if message.kind is Kind.VECTOR_KEPT:
            self._weights = out.copy()
            return
        if self.layout is None or self._weights is None:
            raise ProtocolError(
                "The aggregator sent changed blocks before it had sent the weights that they "
                "refer to."
            )
        self.layout.decode(message.arrays[0], self._weights)
        out[:] = self._weights

    def less(self, weights: np.ndarray) -> np.ndarray:
        """Return weights as a payload of their changed blocks, or whole if that is smaller."""
        if self.layout is None or self._weights is None:
            return weights
        changed = self.layout.changed(weights, self._weights)
        if self.layout.payload_size(changed) >= weights.nbytes:
            return weights
        return self.layout.encode(weights, changed)

    def forget(self) -> None:
        """Drop the kept weights, because the aggregator sent others that it does not keep."""
        self._weights = None
