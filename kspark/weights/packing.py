"""How deltas and gradients are sent: the interface of packing schemes, and the simplest scheme."""

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
        """The part that was not sent yet and is sent later; `None` for a lossless packer."""

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """Pack a delta or gradient. Returns its payload, a uint8 array, or the vector itself."""

    def restore(self, residual: np.ndarray | None) -> None:
        """Continue from another residual.

        Args:
            residual: Vector, or `None` for zeros.
        """


class PackingScheme(Protocol):
    """How the deltas or gradients of a fit are sent. Both ends use the same scheme.

    `Whole` sends whole vectors, `Changes` omits blocks of zeros, and `kspark.compression.Packing`
    compresses.
    """

    @property
    def spec(self) -> WeightSpec:
        """The weights of the model."""

    @property
    def gradients(self) -> bool:
        """Whether the vectors are gradients, which have no state, and not deltas."""

    @property
    def lossless(self) -> bool:
        """Whether packing is lossless. Then vectors may also be sent whole."""

    @property
    def size(self) -> int:
        """Elements of an unpacked vector."""

    @property
    def sizes(self) -> Sequence[int]:
        """Possible payload sizes in bytes; empty if the scheme has no payloads."""

    def packer(self) -> Packer:
        """Return a new packer for one sender."""

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

    def digest(self) -> bytes:
        """Return 32 bytes that differ if the schemes differ."""


class LosslessPacker:
    """Packs vectors independently, without a residual.

    Args:
        pack: Function that packs a vector.
    """

    residual = None

    def __init__(self, pack: Callable[[np.ndarray], np.ndarray]) -> None:
        self._pack = pack

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """Pack a delta or gradient."""
        return self._pack(vector)

    def restore(self, residual: np.ndarray | None) -> None:
        """Do nothing: there is no residual."""


@dataclass(frozen=True)
class Whole:
    """The packing scheme that sends whole deltas or gradients.

    Attributes:
        spec: `WeightSpec` of the model.
        gradients: Boolean, whether the vectors are gradients, which have no state. Defaults to
            `False`.
    """

    lossless: ClassVar[bool] = True
    sizes: ClassVar[Sequence[int]] = ()

    spec: WeightSpec
    gradients: bool = False

    @property
    def size(self) -> int:
        """Elements of a vector."""
        return self.spec.trainable_size if self.gradients else self.spec.size

    def packer(self) -> Packer:
        """Return a packer that returns its vectors unchanged."""
        return LosslessPacker(lambda vector: vector)

    def unpack(self, payload: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Refuse a payload, because this scheme has none.

        Raises:
            ProtocolError: Always.
        """
        raise ProtocolError(f"Got a payload of {payload.nbytes} bytes, expected a whole vector.")

    def digest(self) -> bytes:
        """Return 32 bytes that differ if the weights differ."""
        return self.spec.digest()
