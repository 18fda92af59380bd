"""The largest values only, as they are, and where they belong."""

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
    """A fraction of the values, the ones of largest magnitude; zero for all others.

    ```
    k    = fraction n, rounded up
    C(x) = x where |x| is among the k largest, else 0
    ||x - C(x)||^2 <= (1 - k / n) ||x||^2
    ```

    Of equal magnitudes the ones that come first are sent. NaN and infinity count as larger
    than all numbers, so that at least one of them is sent if there is any. Without error
    feedback such training would stall.

    Payload: the k values in their own dtype, then their positions as uint32, ascending.

    Example:

    ```python
    from kspark.compression import TopK

    spark_model = SparkModel(model, compression=TopK(fraction=0.05))
    ```

    Args:
        fraction: Float > 0 and <= 1, part of the values that is sent. Defaults to `0.01`.
            Below 0.5 it takes fewer bytes than float32 itself.

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
        """How many of `size` values are sent.

        Args:
            size: Integer, elements of the vector.

        Raises:
            ValueError: If there are more than 32 bits can count.
        """
        if size > MOST:
            raise invalid("compression", f'another codec than "top_k" for {size} weights', self)
        return min(size, ceil(round(self.fraction * size, 9)) or 1)  # 0.07 * 100 is above 7

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
            raise ProtocolError("Positions must be ascending, each of them once.")
        if indices[-1] >= out.size:
            raise ProtocolError(f"Got position {indices[-1]} of {out.size} elements.")
        out[:] = 0
        out[indices] = values


def checked_fraction(value: Any) -> float:
    """A number above zero, and at most one.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type("fraction", RULE, value)
    if not 0 < float(value) <= 1:
        raise invalid("fraction", RULE, value)
    return float(value)


def parts(payload: np.ndarray, count: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Views of a payload: values, and their positions."""
    end = count * dtype.itemsize
    return payload[:end].view(dtype), payload[end:].view(INDEX)


def largest(vector: np.ndarray, count: int) -> np.ndarray:
    """Ascending positions of the `count` values of largest magnitude, first ones first."""
    magnitude = np.abs(vector)
    magnitude[np.isnan(magnitude)] = np.inf
    place = magnitude.size - count
    threshold = np.partition(magnitude, place)[place]
    above = np.flatnonzero(magnitude > threshold)
    equal = np.flatnonzero(magnitude == threshold)[: count - above.size]
    return np.sort(np.concatenate([above, equal]))
