"""The layout of a compressed delta or gradient."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kspark.compression.base import Codec
from kspark.errors import ProtocolError
from kspark.weights import WeightSpec

PACKED = np.dtype("uint8")
"""The dtype of a payload: what tells one from a vector."""


@dataclass(frozen=True)
class Packing:
    """What both ends of a fit know about payloads, so that these need not say it.

    ```
    state     of a delta: the weights that are not trained, as they are
    codec     the trainable part, compressed
    ```

    State is the statistics of `BatchNormalization` and its like. They are few, averages and
    not steps (an error in a variance is none that a later step corrects), and so they
    travel whole. Integer and other fixed weights do not travel at all.

    Attributes:
        codec: `Codec`.
        spec: `WeightSpec` of the model.
        gradients: Boolean, whether payloads are gradients, which have no state.
    """

    codec: Codec
    spec: WeightSpec
    gradients: bool = False

    @property
    def size(self) -> int:
        """Elements of the vector that a payload stands for."""
        return self.spec.trainable_size if self.gradients else self.spec.size

    @property
    def state_bytes(self) -> int:
        """Bytes of a payload before the codec's."""
        return (self.size - self.spec.trainable_size) * self.spec.dtype.itemsize

    @cached_property
    def nbytes(self) -> int:
        """Bytes of every payload."""
        size, dtype = self.spec.trainable_size, self.spec.dtype
        return self.state_bytes + self.codec.payload_size(size, dtype)

    def parts(self, payload: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Views of a payload: state in the dtype of the weights, and the codec's bytes."""
        end = self.state_bytes
        return payload[:end].view(self.spec.dtype), payload[end:]

    def unpack(self, payload: np.ndarray, out: np.ndarray) -> np.ndarray:
        """What a payload stands for.

        Args:
            payload: uint8 array from anybody.
            out: Vector of at least `size` elements to write into.

        Returns:
            View of the first `size` elements of `out`.

        Raises:
            ProtocolError: If it is no payload of this layout.
        """
        if payload.dtype != PACKED or payload.shape != (self.nbytes,):
            raise ProtocolError(
                f"Got {payload.nbytes} bytes of a compressed vector, expected {self.nbytes}."
            )
        state, body = self.parts(payload)
        cut, vector = self.spec.trainable_size, out[: self.size]
        self.codec.decode(body, vector[:cut])
        vector[cut:] = state
        return vector

    def digest(self) -> bytes:
        """32 bytes that two ends share only if weights, codec and layout are the same."""
        agreed = json.dumps([self.codec.serialized(), self.gradients], sort_keys=True)
        return hashlib.sha256(self.spec.digest() + agreed.encode()).digest()
