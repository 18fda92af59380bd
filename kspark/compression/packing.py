"""Compressed deltas and gradients: their layout, and error feedback, by which what a codec loses
is sent later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from kspark.compression.base import Codec
from kspark.errors import IncompatibleDeltaError, ProtocolError
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

    def packer(self) -> Compressor:
        """A `Compressor`, without a residual to begin with."""
        return Compressor(self)

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
