"""The codec top_k: only the values of largest magnitude, with their positions."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from kspark.compression.base import Codec
from kspark.errors import ProtocolError, invalid, invalid_type

INDEX = np.dtype(np.uint32)
MOST = 1 << 32
RULE = "a number > 0 and <= 1"


@dataclass(frozen=True)
class TopK(Codec):
    """Sends the fraction of the values with the largest magnitude, and zero for all others.

    ```
    k    = fraction n, rounded up
    C(x) = x where |x| is among the k largest, else 0
    ||x - C(x)||^2 <= (1 - k / n) ||x||^2
    ```

    Of values with equal magnitude, the first ones are sent. NaN and infinity count as larger than
    all numbers, so at least one of them is sent if the vector contains any. Training needs error
    feedback, without which it would stall.

    Payload: the k values in the dtype of the vector, then their positions as uint32, ascending.

    Example:

    ```python
    from kspark.compression import TopK

    spark_model = SparkModel(model, compression=TopK(fraction=0.05))
    ```

    Args:
        fraction: Float > 0 and <= 1, the fraction of the values to send. Below 0.5, the payload of
            float32 values is smaller than the vector. Defaults to `0.01`.

    Reference:
        Aji and Heafield, 2017, "Sparse Communication for Distributed Gradient Descent",
        https://arxiv.org/abs/1704.05021; Stich, Cordonnier, Jaggi, 2018, "Sparsified SGD
        with Memory", https://arxiv.org/abs/1809.07599, Definition 2.1.
    """

    name: ClassVar[str] = "top_k"
    sparse: ClassVar[bool] = True

    fraction: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", checked_fraction(self.fraction))

    def count(self, size: int) -> int:
        """Return how many of `size` values are sent.

        Args:
            size: Integer, elements of the vector.

        Raises:
            ValueError: If `size` exceeds 2^32.
        """
        if size > MOST:
            raise invalid("compression", f'another codec than "top_k" for {size} weights', self)
        return min(size, ceil(round(self.fraction * size, 9)) or 1)  # `0.07 * 100` is above 7.

    def payload_size(self, size: int, dtype: np.dtype) -> int:
        """See `Codec.payload_size`."""
        return self.count(size) * (dtype.itemsize + INDEX.itemsize)

    def _encode(self, vector: np.ndarray, payload: np.ndarray) -> None:
        count = self.count(vector.size)
        values, indices = parts(payload, count, vector.dtype)
        indices[:] = largest(vector, count)
        np.take(vector, indices, out=values)

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        values, indices = parts(payload, self.count(out.size), out.dtype)
        if not np.all(indices[1:] > indices[:-1]):
            raise ProtocolError("The positions of a payload must be strictly ascending.")
        if indices[-1] >= out.size:
            raise ProtocolError(f"Got position {indices[-1]}, expected positions below {out.size}.")
        out[:] = 0
        out[indices] = values


def checked_fraction(value: Any) -> float:
    """Check that a value is a number > 0 and <= 1, and return it as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type("fraction", RULE, value)
    if not 0 < float(value) <= 1:
        raise invalid("fraction", RULE, value)
    return float(value)


def parts(payload: np.ndarray, count: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return views of a payload: the values, and their positions."""
    end = count * dtype.itemsize
    return payload[:end].view(dtype), payload[end:].view(INDEX)


def largest(vector: np.ndarray, count: int) -> np.ndarray:
    """Return the ascending positions of the `count` values with the largest magnitude."""
    magnitude = np.abs(vector)
    magnitude[np.isnan(magnitude)] = np.inf
    place = magnitude.size - count
    threshold = np.partition(magnitude, place)[place]
    above = np.flatnonzero(magnitude > threshold)
    equal = np.flatnonzero(magnitude == threshold)[: count - above.size]
    return np.sort(np.concatenate([above, equal]))
