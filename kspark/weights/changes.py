"""Deltas and gradients without what they do not change."""

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
    """How deltas or gradients of a model travel: without their blocks that are zero.

    The scheme of fits that do not compress, if there is something to leave out. A vector of
    which nothing can be left out is sent as it is.

    Attributes:
        spec: `WeightSpec` of the model.
        layout: `Layout` of what travels.
        gradients: Boolean, whether that are gradients, which have no state.
    """

    lossless: ClassVar[bool] = True

    spec: WeightSpec
    layout: Layout
    gradients: bool = False

    @classmethod
    def of(cls, spec: WeightSpec, gradients: bool = False) -> Changes | None:
        """Those of a model, or `None` if there is nothing to leave out."""
        layout = Layout.of(spec, stop=spec.trainable_size if gradients else spec.size)
        return None if layout is None else cls(spec, layout, gradients)

    @property
    def size(self) -> int:
        """Elements of the vector that a payload stands for."""
        return self.layout.size

    @property
    def sizes(self) -> Sequence[int]:
        """What a payload may have bytes."""
        return self.layout.sizes

    def packer(self) -> Packer:
        """A packer that leaves nothing over."""
        return LosslessPacker(self.pack)

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """A delta or gradient as it travels: its payload, or itself. See `Layout.pack`."""
        return self.layout.pack(vector)

    def unpack(self, payload: np.ndarray, out: np.ndarray) -> np.ndarray:
        """What a payload stands for.

        Args:
            payload: uint8 array from anybody.
            out: Vector of at least `size` elements to write into.

        Returns:
            View of the first `size` elements of `out`.

        Raises:
            ProtocolError: If it is no payload of this layout; nothing is written.
        """
        vector = out[: self.size]
        self.layout.unpack(payload, vector)
        return vector

    def digest(self) -> bytes:
        """32 bytes that two ends share only if weights and layout are the same."""
        return hashlib.sha256(self.spec.digest() + repr(self.layout).encode()).digest()
