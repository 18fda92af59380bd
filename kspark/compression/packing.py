"""The payloads of compressed deltas and gradients, and error feedback."""

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
    """The packing scheme that compresses deltas or gradients. Both ends of a fit know it.

    A payload has two parts:

    ```
    state     of a delta only: the non-trainable weights, or fewer bytes, only their changed
              blocks as a payload of `kspark.weights`
    codec     the trainable weights, compressed
    ```

    The state, such as the statistics of `BatchNormalization`, is not compressed. It has few
    elements, and they are averages, not steps: later steps do not correct an error in a variance.
    The state of frozen layers may be large, but does not change. Integers and other fixed weights
    are not sent.

    Example:

    ```python
    packing = Packing(Int8(), spec)
    payload = Compressor(packing).pack(delta)
    received = packing.unpack(payload, np.empty(spec.size, spec.dtype))
    ```

    Attributes:
        codec: `Codec`.
        spec: `WeightSpec` of the model.
        gradients: Boolean, whether the vectors are gradients, which have no state. Defaults to
            `False`.
    """

    lossless: ClassVar[bool] = False

    codec: Codec
    spec: WeightSpec
    gradients: bool = False

    @property
    def size(self) -> int:
        """Elements of an unpacked vector."""
        return self.spec.trainable_size if self.gradients else self.spec.size

    @property
    def state_bytes(self) -> int:
        """Bytes of the whole state, the first part of a payload."""
        return (self.size - self.spec.trainable_size) * self.spec.dtype.itemsize

    @cached_property
    def codec_bytes(self) -> int:
        """Bytes of the compressed weights, the second part of a payload."""
        return self.codec.payload_size(self.spec.trainable_size, self.spec.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of a payload with the whole state, the maximum."""
        return self.state_bytes + self.codec_bytes

    @cached_property
    def state_layout(self) -> Layout | None:
        """The blocks of the state that may be omitted, or `None`."""
        return None if self.gradients else Layout.of(self.spec, self.spec.trainable_size)

    @cached_property
    def sizes(self) -> Sequence[int]:
        """Possible payload sizes in bytes."""
        if self.state_layout is None:
            return (self.nbytes,)
        return range(self.state_layout.sizes[0] + self.codec_bytes, self.nbytes + 1)

    def packer(self) -> Compressor:
        """Return a new `Compressor` with a residual of zeros."""
        return Compressor(self)

    def pack_state(self, state: np.ndarray) -> np.ndarray:
        """Return the first part of a payload.

        Args:
            state: Vector, the non-trainable weights of a delta.
        """
        layout = self.state_layout
        return (state if layout is None else layout.pack(state)).view(PACKED)

    def unpack(self, payload: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Unpack a payload, which is not trusted.

        Args:
            payload: uint8 array.
            out: Vector of at least `size` elements to write into.

        Returns:
            View of the first `size` elements of `out`.

        Raises:
            ProtocolError: If the payload does not fit this scheme.
        """
        if payload.dtype != PACKED or payload.ndim != 1 or payload.size not in self.sizes:
            raise ProtocolError(
                f"Got {payload.nbytes} bytes of a compressed vector, expected {self.nbytes}."
            )
        start = payload.size - self.codec_bytes
        cut, vector = self.spec.trainable_size, out[: self.size]
        layout = None if start == self.state_bytes else self.state_layout
        if layout is not None:
            layout.read(payload[:start])  # Check the state before writing the trainable weights.
        self.codec.decode(payload[start:], vector[:cut])
        if layout is None:
            vector[cut:] = payload[:start].view(vector.dtype)
        else:
            layout.unpack(payload[:start], vector[cut:])
        return vector

    def digest(self) -> bytes:
        """Return 32 bytes that differ if the weights, the codec or the kind of vector differ."""
        agreed = json.dumps([self.codec.serialized(), self.gradients], sort_keys=True)
        return hashlib.sha256(self.spec.digest() + agreed.encode()).digest()


class Compressor:
    """Packs one replica's deltas or gradients, one after the other, with error feedback.

    ```
    p <- e + delta      add the residual
    send C(p)
    e <- p - C(p)       the error of the codec is the next residual
    ```

    So the sum of all sent vectors plus the residual equals the sum of all deltas: errors are sent
    later, not lost. Only the trainable weights are compressed and have a residual.

    Where a value is NaN or infinite, the residual becomes zero. Otherwise one infinite gradient,
    which a loss scale may cause on purpose, would stay in it forever.

    Example:

    ```python
    compressor = Compressor(Packing(TopK(0.01), spec))
    first, second = compressor.pack(delta), compressor.pack(other_delta)
    ```

    Args:
        packing: `Packing`.

    Attributes:
        residual: Vector of `spec.trainable_size` elements, initially zeros.

    Reference:
        Karimireddy, Rebjock, Stich, Jaggi, 2019, "Error Feedback Fixes SignSGD and other
        Gradient Compression Schemes", https://arxiv.org/abs/1901.09847, Algorithm 2.
    """

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        self.residual = np.zeros(packing.spec.trainable_size, packing.spec.dtype)
        self._sent = np.empty_like(self.residual)

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """Compress the next vector to send.

        Args:
            vector: Vector of `packing.size` elements, a delta or a gradient. It is not modified.

        Returns:
            The payload, a new uint8 array.

        Raises:
            IncompatibleDeltaError: If the vector has a wrong size or dtype.
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
        """Continue from another residual.

        Args:
            residual: Vector of `spec.trainable_size` elements, which is copied, or `None` for
                zeros.

        Raises:
            IncompatibleDeltaError: If `residual` has a wrong size or dtype.
        """
        if residual is None:
            self.residual[:] = 0
            return
        if residual.shape != self.residual.shape or residual.dtype != self.residual.dtype:
            raise IncompatibleDeltaError(
                f"A residual of shape {residual.shape} and dtype {residual.dtype} does not match "
                f"shape {self.residual.shape} and dtype {self.residual.dtype}."
            )
        self.residual[:] = residual

    def _keep_the_rest(self) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            np.subtract(self.residual, self._sent, out=self.residual)
        rest = np.isfinite(self.residual)
        if not rest.all():
            self.residual[~rest] = 0
