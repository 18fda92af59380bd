"""Brain floating point: the upper half of a single-precision number."""

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

    Rounded to the nearest, ties to even; a float64 is rounded to float32 first, which can
    add 2^-24 |x|. Larger finite values become the largest one. NaN and infinity travel as
    themselves. No value of a gradient is too small or too large for it, where `Float16` has
    three bits more.

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
    """The upper halves of values, as uint16; finite ones stay finite."""
    with np.errstate(over="ignore", under="ignore"):
        singles = values.astype(np.float32, copy=False)
    bits = singles.view(np.uint32)
    # A little less than half a unit, and the unit's own last bit: ties go to even.
    halves = ((bits + (HALF + ((bits >> UPPER) & ONE))) >> UPPER).astype(np.uint16)
    halves[np.isnan(singles)] = NAN
    over = ((halves & MAGNITUDE) == INFINITY) & np.isfinite(values)
    halves[over] -= np.uint16(1)
    return halves
