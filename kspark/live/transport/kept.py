"""What a replica keeps of the weights, so that most of them need not be sent again."""

from __future__ import annotations

import numpy as np

from kspark.errors import ProtocolError
from kspark.live.wire import Kind, Message
from kspark.weights import Layout


class Kept:
    """The whole weights of the last answer. See `kspark.weights.Reference`.

    They are a copy: what a caller receives into is its own, and often trained on.

    Args:
        layout: `Layout` of the weights, or `None`: then nothing is ever kept.
    """

    def __init__(self, layout: Layout | None) -> None:
        self.layout = layout
        self._weights: np.ndarray | None = None

    def take(self, message: Message, out: np.ndarray) -> None:
        """Keep the weights of a message, or complete those that it leaves out.

        Args:
            message: `Message` of kind `VECTOR_KEPT` or `VECTOR_CHANGED`, received into `out`.
            out: Vector, becomes the whole weights.

        Raises:
            ProtocolError: If it is no change of what was kept.
        """
        if message.kind is Kind.VECTOR_KEPT:
            self._weights = out.copy()
            return
        if self.layout is None or self._weights is None:
            raise ProtocolError("The answer is a change of weights that were not sent.")
        self.layout.decode(message.arrays[0], self._weights)
        out[:] = self._weights

    def less(self, weights: np.ndarray) -> np.ndarray:
        """Weights that the aggregator is to have: a payload of what changed, or themselves."""
        if self.layout is None or self._weights is None:
            return weights
        changed = self.layout.changed(weights, self._weights)
        if self.layout.payload_size(changed) >= weights.nbytes:
            return weights
        return self.layout.encode(weights, changed)

    def forget(self) -> None:
        """The aggregator has sent other weights, and will not tell changes of them."""
        self._weights = None
