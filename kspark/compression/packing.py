"""The layout of a compressed delta or gradient."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from kspark.compression.base import Codec
from kspark.errors import ProtocolError
from kspark.weights import PACKED, Layout, WeightSpec


@dataclass(frozen=True)
class Packing:
    """What both ends of a fit know about payloads, so that these need not say it.

    ```
    state     of a delta: the weights that are not trained, or fewer bytes: those of them
              that changed, as `kspark.weights` lays them out
    codec     the trainable part, compressed
    ```

    State is the statistics of `BatchNormalization` and its like. They are few, averages and
    not steps (an error in a variance is none that a later step corrects), and so they
    travel as they are. That of frozen layers is much, and does not change. Integer and
    other fixed weights do not travel at all.

    Example:

    ```python
    packing = Packing(Int8(), spec)
    payload = Compressor(packing).pack(delta)
    received = packing.unpack(payload, np.empty(spec.size, spec.dtype))
    ```

    Attributes:
        codec: `Codec`.
        spec: `WeightSpec` of the model.
        gradients: Boolean, whether payloads are gradients, which have no state.
    """

    lossless: ClassVar[bool] = False

    codec: Codec
    spec: WeightSpec
    gradients: bool = False

    @property
    def size(self) -> int:
        """Elements of the vector that a payload stands for."""
        return self.spec.trainable_size if self.gradients else self.spec.size

    @property
    def state_bytes(self) -> int:
        """Bytes of all state in a payload, before the codec's."""
        return (self.size - self.spec.trainable_size) * self.spec.dtype.itemsize

    @cached_property
    def codec_bytes(self) -> int:
        """Bytes of the trainable part, the last ones of a payload."""
        return self.codec.payload_size(self.spec.trainable_size, self.spec.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of a payload with all state, the most that there are."""
        return self.state_bytes + self.codec_bytes

    @cached_property
    def state_layout(self) -> Layout | None:
        """The blocks of the state, if there are so many that they may be left out."""
        return None if self.gradients else Layout.of(self.spec, self.spec.trainable_size)

    @cached_property
    def sizes(self) -> Sequence[int]:
        """What a payload may have bytes."""
        if self.state_layout is None:
            return (self.nbytes,)
        return range(self.state_layout.sizes[0] + self.codec_bytes, self.nbytes + 1)

    def pack_state(self, state: np.ndarray) -> np.ndarray:
        """What a payload begins with, as bytes.

        Args:
            state: Vector, the weights of a delta that are not trained.
        """
        layout = self.state_layout
        return (state if layout is None else layout.pack(state)).view(PACKED)

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
        if payload.dtype != PACKED or payload.ndim != 1 or payload.size not in self.sizes:
            raise ProtocolError(
                f"Got {payload.nbytes} bytes of a compressed vector, expected {self.nbytes}."
            )
        start = payload.size - self.codec_bytes
        cut, vector = self.spec.trainable_size, out[: self.size]
        layout = None if start == self.state_bytes else self.state_layout
        if layout is not None:
            layout.read(payload[:start])  # what is wrong with it is said before it is written
        self.codec.decode(payload[start:], vector[:cut])
        if layout is None:
            vector[cut:] = payload[:start].view(vector.dtype)
        else:
            layout.unpack(payload[:start], vector[cut:])
        return vector

    def digest(self) -> bytes:
        """32 bytes that two ends share only if weights, codec and layout are the same."""
        agreed = json.dumps([self.codec.serialized(), self.gradients], sort_keys=True)
        return hashlib.sha256(self.spec.digest() + agreed.encode()).digest()
