"""The codec int8: integers from -127 to 127, with one scale per 2,048 values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kspark.compression.base import Codec
from kspark.errors import ProtocolError
from kspark.weights.arithmetic import PIECE

BLOCK = 2048
"""Values that share a scale. A single large value reduces the precision of its block only."""

LEVELS = 127
NOT_FINITE = -128
SCALE = np.dtype(np.float32)
LOWEST_BITS = np.uint32(0xFF)
SMALLEST_SCALE = np.uint32(0x00000100).view(np.float32)
# 127 times this scale is a finite float32.
LARGEST_SCALE = (np.float32(np.finfo(np.float32).max / 127).view(np.uint32) & ~LOWEST_BITS).view(
    SCALE
)


@dataclass(frozen=True)
class Int8(Codec):
    """One byte per value, and four for the scale of every 2,048 values.

    ```
    s    = max |x_j| / 127 of the block, rounded up to 16 bits of precision
    C(x) = s round(x / s)
    |x - C(x)| <= s / 2
    ```

    Values are rounded to the nearest, ties to even, so the same vector gives the same bytes. The
    product of a 16-bit scale and a 7-bit integer is exact in float32, so the bound holds exactly.
    float64 values beyond 3.4e38 become 3.4e38.

    The number -128 encodes NaN and infinity, and is decoded as NaN. The other values of its block
    keep their precision.

    Payload: the scales of all blocks as float32, then one int8 per value.

    Example:

    ```python
    from kspark.compression import Int8

    spark_model = SparkModel(model, compression=Int8())
    ```

    Reference:
        Dettmers, 2016, "8-Bit Approximations for Parallelism in Deep Learning",
        https://arxiv.org/abs/1511.04561
    """

    name: ClassVar[str] = "int8"

    def payload_size(self, size: int, dtype: np.dtype) -> int:
        """See `Codec.payload_size`."""
        return num_blocks(size) * SCALE.itemsize + size

    def _encode(self, vector: np.ndarray, payload: np.ndarray) -> None:
        scales, numbers = parts(payload, vector.size)
        for blocks, piece, width in rows(vector.size):
            values = vector[piece].reshape(-1, width)
            finite = np.isfinite(values)
            scale = scales_of(np.where(finite, values, 0))
            scales[blocks] = scale
            numbers[piece] = quantized(values, finite, scale).reshape(-1)

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        scales, numbers = parts(payload, out.size)
        if not np.all((scales >= 0) & (scales <= LARGEST_SCALE)):  # Also refuses NaN.
            raise ProtocolError(f"A scale must be a number from 0 to {LARGEST_SCALE}.")
        for blocks, piece, width in rows(out.size):
            whole = numbers[piece].reshape(-1, width)
            with np.errstate(over="ignore"):  # For `NOT_FINITE`, which is replaced below.
                values = whole * scales[blocks, None].astype(out.dtype)
            values[whole == NOT_FINITE] = np.nan
            out[piece] = values.reshape(-1)


def num_blocks(size: int) -> int:
    """Return the number of blocks for `size` values. The last block may be short."""
    return -(-size // BLOCK)


def parts(payload: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return views of a payload: the scales, and the integers."""
    end = num_blocks(size) * SCALE.itemsize
    return payload[:end].view(SCALE), payload[end:].view(np.int8)


def rows(size: int) -> Iterator[tuple[slice, slice, int]]:
    """Yield several blocks of one width at a time: their slice, their values' slice, the width."""
    whole = size // BLOCK * BLOCK
    for start in range(0, whole, PIECE):
        stop = min(start + PIECE, whole)
        yield slice(start // BLOCK, stop // BLOCK), slice(start, stop), BLOCK
    if whole < size:
        yield slice(whole // BLOCK, whole // BLOCK + 1), slice(whole, size), size - whole


def scales_of(values: np.ndarray) -> np.ndarray:
    """Return the scale of each row: its largest magnitude divided by 127, rounded up."""
    peak = np.abs(values).max(axis=1)
    scale = np.minimum(peak / np.float64(LEVELS), LARGEST_SCALE)
    scale = np.where(peak > 0, np.maximum(scale, SMALLEST_SCALE), 0).astype(SCALE)
    return ((scale.view(np.uint32) + LOWEST_BITS) & ~LOWEST_BITS).view(SCALE)


def quantized(values: np.ndarray, finite: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return rows of values as integers."""
    # In float64, so that values close to the middle of two integers are rounded correctly.
    divisor = np.where(scale > 0, scale, 1).astype(np.float64)[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        whole = np.clip(np.rint(values / divisor), -LEVELS, LEVELS)
    return np.where(finite, whole, NOT_FINITE).astype(np.int8)
