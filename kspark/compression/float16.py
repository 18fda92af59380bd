"""The codec float16: one bit of sign, five of exponent, ten of fraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kspark.compression.base import Codec
from kspark.weights.arithmetic import pieces

LARGEST = np.float16(65504)


@dataclass(frozen=True)
class Float16(Codec):
    """Two bytes per value, rounded to the nearest half-precision number, ties to even.

    ```
    |x - C(x)| <= max(2^-11 |x|, 2^-25)    if |x| <= 65504
    C(x) = sign(x) 65504                   if x is finite and larger
    ```

    Error feedback sends the part of a value beyond 65504 later, and values that are too small for
    one push. NaN and infinity are preserved.

    Example:

    ```python
    from kspark.compression import Float16

    spark_model = SparkModel(model, compression=Float16())
    ```

    Reference:
        Micikevicius et al., 2018, "Mixed Precision Training",
        https://arxiv.org/abs/1710.03740
    """

    name: ClassVar[str] = "float16"

    def payload_size(self, size: int, dtype: np.dtype) -> int:
        """See `Codec.payload_size`."""
        return 2 * size

    def _encode(self, vector: np.ndarray, payload: np.ndarray) -> None:
        halves = payload.view(np.float16)
        for piece in pieces(vector.size):
            halves[piece] = rounded(vector[piece])

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        np.copyto(out, payload.view(np.float16))


def rounded(values: np.ndarray) -> np.ndarray:
    """Round values to half precision. Finite values stay finite."""
    with np.errstate(over="ignore", under="ignore"):
        halves = values.astype(np.float16)
    over = np.isinf(halves) & np.isfinite(values)
    if over.any():
        halves[over] = np.copysign(LARGEST, values[over])
    return halves
