"""The base class of codecs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np

from kspark.errors import IncompatibleDeltaError, ProtocolError


class Codec(ABC):
    """Base class of codecs, which encode a vector as fewer bytes and decode an approximation.

    A codec is a frozen dataclass of its arguments. Codecs with equal arguments are equal. They keep
    no state, so the same vector always gives the same bytes.

    NaN is decoded as NaN, so that a diverged replica remains visible. Infinity is decoded as
    infinity or as NaN. Finite numbers are decoded as finite numbers.

    Example:

    ```python
    codec = Int8()
    payload = codec.encode(vector)
    decoded = np.empty_like(vector)
    codec.decode(payload, decoded)
    ```

    Attributes:
        name: String, the codec's name, as in `SparkModel(compression="int8")`.
        sparse: Boolean, whether most decoded values are zero.
    """

    name: ClassVar[str]
    sparse: ClassVar[bool] = False

    @abstractmethod
    def payload_size(self, size: int, dtype: np.dtype) -> int:
        """Return the bytes of a payload, which depend only on size and dtype of the vector.

        Args:
            size: Integer, elements of the vector.
            dtype: Dtype of the vector, float32 or float64.
        """

    def encode(self, vector: np.ndarray, payload: np.ndarray | None = None) -> np.ndarray:
        """Encode a vector.

        Args:
            vector: Vector of float32 or float64. It is not modified.
            payload: Contiguous uint8 array of `payload_size` elements to write into. Defaults to
                `None`, a new array.

        Returns:
            The payload, a uint8 array.

        Raises:
            IncompatibleDeltaError: If `payload` has a wrong size or dtype.
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
        """Decode a payload, which is not trusted.

        Args:
            payload: Contiguous uint8 array.
            out: Vector to write into, of the size and dtype of the encoded vector.

        Raises:
            ProtocolError: If the payload does not fit such a vector.
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
        """Encode a vector of at least one element into `payload`, which has the right size."""

    @abstractmethod
    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        """Decode `payload`, which has the right size, into `out` of at least one element."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as a dictionary."""
        return asdict(self)  # type: ignore[call-overload]

    def serialized(self) -> dict[str, Any]:
        """Return the codec as a dictionary of its class name and configuration."""
        return {"class_name": type(self).__name__, "config": self.get_config()}
