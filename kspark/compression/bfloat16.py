"""The codec bfloat16: the upper half of a single-precision number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kspark.compression.base import Codec
from kspark.weights.arithmetic import pieces

HALF = np.uint32(0x7FFF)
ONE = np.uint32(1)
UPPER = np.uint32(16)
NAN, INFINITY, MAGNITUDE = np.uint16(0x7FC0), np.uint16(0x7F80), np.uint16(0x7FFF)


@dataclass(frozen=True)
class BFloat16(Codec):
    """Two bytes per value: eight bits of exponent as float32 has, seven of fraction.

    ```
    |x - C(x)| <= 2^-8 |x|    if 2^-126 <= |x|, up to the largest bfloat16 (3.39e38)
    ```

    Values are rounded to the nearest, ties to even. A float64 is rounded to float32 first, which
    can add an error of 2^-24 |x|. Larger finite values become the largest bfloat16. NaN and
    infinity are preserved. The range is that of float32, so that no value of a gradient is too
    small or too large. `Float16` has a smaller range and three more bits of precision.

    Example:

    ```python
    from kspark.compression import BFloat16

    spark_model = SparkModel(model, compression=BFloat16())
    ```

    Reference:
        Kalamkar et al., 2019, "A Study of BFLOAT16 for Deep Learning Training",
        https://arxiv.org/abs/1905.12322
    """

    name: ClassVar[str] = "bfloat16"

    def payload_size(self, size: int, dtype: np.dtype) -> int:
        """See `Codec.payload_size`."""
        return 2 * size

    def _encode(self, vector: np.ndarray, payload: np.ndarray) -> None:
        halves = payload.view(np.uint16)
        for piece in pieces(vector.size):
            halves[piece] = rounded(vector[piece])

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        halves = payload.view(np.uint16)
        for piece in pieces(out.size):
            bits = halves[piece].astype(np.uint32)
            out[piece] = (bits << UPPER).view(np.float32)


def rounded(values: np.ndarray) -> np.ndarray:
    """Round values to bfloat16, returned as uint16. Finite values stay finite."""
    with np.errstate(over="ignore", under="ignore"):
        singles = values.astype(np.float32, copy=False)
    bits = singles.view(np.uint32)
    # Add just below half a unit, plus the last bit of the unit, so that ties go to even.
    halves = ((bits + (HALF + ((bits >> UPPER) & ONE))) >> UPPER).astype(np.uint16)
    halves[np.isnan(singles)] = NAN
    over = ((halves & MAGNITUDE) == INFINITY) & np.isfinite(values)
    halves[over] -= np.uint16(1)
    return halves
