"""What every codec has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np

from kspark.errors import IncompatibleDeltaError, ProtocolError


class Codec(ABC):
    """Turns a vector into fewer bytes, and these into nearly that vector.

    A codec is a frozen dataclass of its arguments: two of the same arguments are equal, and
    keep nothing from one vector to the next. The same vector gives the same bytes each time.

    What is not finite stays not finite: a NaN in the vector is one in what is decoded, so
    that a diverged replica is seen as such. Infinity stays infinity, or becomes NaN. A
    finite number stays finite.

    Example:

    ```python
    codec = Int8()
    payload = codec.encode(vector)
    decoded = np.empty_like(vector)
    codec.decode(payload, decoded)
    ```

    Attributes:
        name: String, as in `SparkModel(compression="int8")`.
        sparse: Boolean, whether most of what is decoded is zero.
    """

    name: ClassVar[str]
    sparse: ClassVar[bool] = False

    @abstractmethod
    def payload_size(self, size: int, dtype: np.dtype) -> int:
        """Bytes of every payload for `size` elements: it depends on nothing else.

        Args:
            size: Integer, elements of the vector.
            dtype: float32 or float64, of the vector.
        """

    def encode(self, vector: np.ndarray, payload: np.ndarray | None = None) -> np.ndarray:
        """A vector as bytes.

        Args:
            vector: Vector of float32 or float64; not modified.
            payload: Optional contiguous uint8 array of `payload_size` elements to write into.

        Returns:
            The payload, a uint8 array.

        Raises:
            IncompatibleDeltaError: If `payload` has another size or dtype.
        """
        wanted = self.payload_size(vector.size, vector.dtype)
        payload = np.empty(wanted, np.uint8) if payload is None else payload
        if payload.size != wanted or payload.dtype != np.uint8:
            raise IncompatibleDeltaError(
                f"The payload has {payload.size} elements of {payload.dtype}, "
                f"expected {wanted} of uint8."
            )
        if vector.size:
            self._encode(np.ascontiguousarray(vector), payload)
        return payload

    def decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        """Bytes, which may come from anybody, as a vector.

        Args:
            payload: Contiguous uint8 array.
            out: Vector to write into, of the size and dtype that was encoded.

        Raises:
            ProtocolError: If they are no payload for such a vector.
        """
        wanted = self.payload_size(out.size, out.dtype)
        if payload.size != wanted or payload.dtype != np.uint8:
            raise ProtocolError(
                f'Got {payload.nbytes} bytes of "{self.name}" for {out.size} elements, '
                f"expected {wanted}."
            )
        if out.size:
            self._decode(payload, out)

    @abstractmethod
    def _encode(self, vector: np.ndarray, payload: np.ndarray) -> None:
        """Write into `payload`, which has the right size. There is at least one element."""

    @abstractmethod
    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        """Write into `out`, for which `payload` has the right size."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return asdict(self)  # type: ignore[call-overload]

    def serialized(self) -> dict[str, Any]:
        """The codec as plain data."""
        return {"class_name": type(self).__name__, "config": self.get_config()}
