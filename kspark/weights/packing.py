"""How deltas and gradients travel: what all schemes have in common, and the simplest of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from kspark.errors import ProtocolError
from kspark.weights.spec import WeightSpec


class Packer(Protocol):
    """Packs the deltas or gradients of one sender, one after the other."""

    @property
    def residual(self) -> np.ndarray | None:
        """What packing has lost and will send later; `None` if it never loses anything."""

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """A delta or gradient as it travels: its payload, a uint8 array; or the vector itself."""

    def restore(self, residual: np.ndarray | None) -> None:
        """Go on from another residual; `None` is none at all."""


class PackingScheme(Protocol):
    """How the deltas or gradients of a fit travel. Both ends use the same scheme.

    `Whole` sends vectors as they are, `Changes` leaves out what is zero, and
    `kspark.compression.Packing` compresses.
    """

    @property
    def spec(self) -> WeightSpec:
        """The weights of the model."""

    @property
    def gradients(self) -> bool:
        """Whether gradients travel, which have no state; else deltas do."""

    @property
    def lossless(self) -> bool:
        """Whether nothing is lost. A vector may be sent as it is then."""

    @property
    def size(self) -> int:
        """Elements of the vector that a payload stands for."""

    @property
    def sizes(self) -> Sequence[int]:
        """The bytes that a payload may have; empty if there are no payloads."""

    def packer(self) -> Packer:
        """A new packer for one sender."""

    def unpack(self, payload: np.ndarray, out: np.ndarray) -> np.ndarray:
        """What a payload stands for.

        Args:
            payload: uint8 array from anybody.
            out: Vector of at least `size` elements to write into.

        Returns:
            View of the first `size` elements of `out`.

        Raises:
            ProtocolError: If it is no payload of this scheme.
        """

    def digest(self) -> bytes:
        """32 bytes that two ends share only if their schemes are equal."""


class LosslessPacker:
    """Packs each vector for itself, and keeps nothing.

    Args:
        pack: Function from a vector to what travels.
    """

    residual = None

    def __init__(self, pack: Callable[[np.ndarray], np.ndarray]) -> None:
        self._pack = pack

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """A delta or gradient as it travels."""
        return self._pack(vector)

    def restore(self, residual: np.ndarray | None) -> None:
        """There is no residual to go on from."""


@dataclass(frozen=True)
class Whole:
    """Deltas or gradients travel as they are.

    Attributes:
        spec: `WeightSpec` of the model.
        gradients: Boolean, whether gradients travel, which have no state.
    """

    lossless: ClassVar[bool] = True
    sizes: ClassVar[Sequence[int]] = ()

    spec: WeightSpec
    gradients: bool = False

    @property
    def size(self) -> int:
        """Elements of the vector that travels."""
        return self.spec.trainable_size if self.gradients else self.spec.size

    def packer(self) -> Packer:
        """A packer that returns what it is given."""
        return LosslessPacker(lambda vector: vector)

    def unpack(self, payload: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Refuse a payload: there are none.

        Raises:
            ProtocolError: Always.
        """
        raise ProtocolError(f"Got a payload of {payload.nbytes} bytes, expected a whole vector.")

    def digest(self) -> bytes:
        """32 bytes that two ends share only if their weights are the same."""
        return self.spec.digest()
