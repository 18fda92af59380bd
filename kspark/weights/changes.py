"""Deltas and gradients without their zero blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kspark.weights.layout import Layout
from kspark.weights.packing import LosslessPacker, Packer
from kspark.weights.spec import WeightSpec


@dataclass(frozen=True)
class Changes:
    """The packing scheme that omits blocks of zeros in deltas or gradients.

    Fits without compression use it if the model has blocks. A vector without zero blocks is sent
    whole.

    Attributes:
        spec: `WeightSpec` of the model.
        layout: `Layout` of the vectors.
        gradients: Boolean, whether the vectors are gradients, which have no state. Defaults to
            `False`.
    """

    lossless: ClassVar[bool] = True

    spec: WeightSpec
    layout: Layout
    gradients: bool = False

    @classmethod
    def of(cls, spec: WeightSpec, gradients: bool = False) -> Changes | None:
        """Create the scheme of a model. Returns `None` if the model has no blocks."""
        layout = Layout.of(spec, stop=spec.trainable_size if gradients else spec.size)
        return None if layout is None else cls(spec, layout, gradients)

    @property
    def size(self) -> int:
        """Elements of an unpacked vector."""
        return self.layout.size

    @property
    def sizes(self) -> Sequence[int]:
        """Possible payload sizes in bytes."""
        return self.layout.sizes

    def packer(self) -> Packer:
        """Return a packer, which has no residual."""
        return LosslessPacker(self.pack)

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """Pack a delta or gradient. Returns it whole if the payload would not be smaller."""
        return self.layout.pack(vector)

    def unpack(self, payload: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Unpack a payload, which is not trusted.

        Args:
            payload: uint8 array.
            out: Vector of at least `size` elements to write into.

        Returns:
            View of the first `size` elements of `out`.

        Raises:
            ProtocolError: If the payload does not fit this layout. Nothing is written then.
        """
        vector = out[: self.size]
        self.layout.unpack(payload, vector)
        return vector

    def digest(self) -> bytes:
        """Return 32 bytes that differ if the weights or the layout differ."""
        return hashlib.sha256(self.spec.digest() + repr(self.layout).encode()).digest()
