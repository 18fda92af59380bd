"""Error feedback: what a codec loses is sent later."""

from __future__ import annotations

import numpy as np

from kspark.compression.packing import Packing
from kspark.errors import IncompatibleDeltaError
from kspark.weights import PACKED


class Compressor:
    """Packs one replica's deltas or gradients, one after the other.

    ```
    p <- e + delta      the residual, and what is new
    send C(p)
    e <- p - C(p)       what the codec lost: the next residual
    ```

    So the sum of all that was sent, plus the residual, is the sum of all deltas: nothing is
    lost, it comes late. Only the trainable part is compressed, and has a residual.

    What is not finite leaves nothing behind: the residual is zero there, so that one
    infinite gradient, which a loss scale provokes on purpose, does not stay for ever.

    Example:

    ```python
    compressor = Compressor(Packing(TopK(0.01), spec))
    payloads = [compressor.pack(delta) for delta in deltas]
    ```

    Args:
        packing: `Packing`.

    Attributes:
        residual: Vector of `spec.trainable_size` elements; zeros to begin with.

    Reference:
        Karimireddy, Rebjock, Stich, Jaggi, 2019, "Error Feedback Fixes SignSGD and other
        Gradient Compression Schemes", https://arxiv.org/abs/1901.09847, Algorithm 2.
    """

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        self.residual = np.zeros(packing.spec.trainable_size, packing.spec.dtype)
        self._sent = np.empty_like(self.residual)

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """Compress what is to be sent next.

        Args:
            vector: Vector of `packing.size` elements, a delta or a gradient; not modified.

        Returns:
            The payload, a new uint8 array.

        Raises:
            IncompatibleDeltaError: If the vector has another size or dtype.
        """
        packing, cut = self.packing, self.residual.size
        if vector.shape != (packing.size,) or vector.dtype != self.residual.dtype:
            raise IncompatibleDeltaError(
                f"Shape {vector.shape} and dtype {vector.dtype} do not match "
                f"shape ({packing.size},) and dtype {self.residual.dtype}."
            )
        state = packing.pack_state(vector[cut:])
        payload = np.empty(state.size + packing.codec_bytes, PACKED)
        payload[: state.size] = state
        body = payload[state.size :]
        np.add(self.residual, vector[:cut], out=self.residual)
        packing.codec.encode(self.residual, body)
        packing.codec.decode(body, self._sent)
        self._keep_the_rest()
        return payload

    def restore(self, residual: np.ndarray | None) -> None:
        """Go on from another residual; `None` is none at all.

        Args:
            residual: Vector of `spec.trainable_size` elements, or `None`.

        Raises:
            IncompatibleDeltaError: If it has another size or dtype.
        """
        if residual is None:
            self.residual[:] = 0
            return
        if residual.shape != self.residual.shape or residual.dtype != self.residual.dtype:
            raise IncompatibleDeltaError(
                f"A residual of shape {residual.shape} and dtype {residual.dtype} is not one of "
                f"shape {self.residual.shape} and dtype {self.residual.dtype}."
            )
        self.residual[:] = residual

    def _keep_the_rest(self) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            np.subtract(self.residual, self._sent, out=self.residual)
        rest = np.isfinite(self.residual)
        if not rest.all():
            self.residual[~rest] = 0
