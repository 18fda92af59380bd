"""A message laid out as a frame. The format is drawn in the package's docstring."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kspark.errors import ProtocolError, invalid
from kspark.live.wire.messages import MAX_NUMBERS, NUMBERS, Kind, Limit, Limits, check_fields
from kspark.weights import PACKED

MAGIC = 0x6B73706B
VERSION = 1
HEADER = struct.Struct("=IBBHqqqIQ")
CHECKSUM = struct.Struct("=I")
PREFIX_SIZE = HEADER.size + CHECKSUM.size
ALIGNMENT = 8
# The header's code of a vector's dtype; 0 if the payload is no vector.
VECTOR_CODES: Mapping[np.dtype | None, int] = {
    None: 0,
    np.dtype("float32"): 1,
    np.dtype("float64"): 2,
    PACKED: 3,
}
# What may travel: numbers of a fixed size. bfloat16 is the one that numpy itself lacks.
DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    + ["float16", "bfloat16", "float32", "float64"]
)


def encode(
    kind: Kind,
    numbers: Sequence[int] = (),
    meta: Mapping[str, Any] | None = None,
    arrays: Sequence[np.ndarray] = (),
    *,
    limits: Limits,
) -> list[memoryview]:
    """Lay out one message for sending, without copying contiguous arrays.

    Args:
        kind: `Kind`.
        numbers: Sequence of integers >= 0, as `NUMBERS` lists them for this kind.
        meta: Mapping, JSON only, with the fields that `FIELDS` lists for this kind.
        arrays: Sequence of arrays: at most one vector, or any arrays of `DTYPES`,
            depending on the kind.
        limits: What the receiver accepts.

    Returns:
        Buffers to send one after the other. They are views: send before changing an array.

    Raises:
        ValueError: If the receiver would not accept it.
        TypeError: If `meta` holds something that JSON does not have.
    """
    limit = limits[kind]
    if limit.dtype is None:
        buffers, described = _document(arrays)
    else:
        buffers, described = _vector(arrays, limit.dtype), []
    text = _text(kind, meta or {}, described)
    size = sum(map(len, buffers))
    _check_sendable(kind, numbers, len(text), size, limit)
    padding = (0,) * (MAX_NUMBERS - len(numbers))
    code = VECTOR_CODES[limit.dtype]
    header = HEADER.pack(MAGIC, VERSION, kind, code, *numbers, *padding, len(text), size)
    return [memoryview(header + checksum(header, text) + text), *buffers]


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array as bytes, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def checksum(header: bytes, text: bytes) -> bytes:
    """The four bytes between header and meta."""
    return CHECKSUM.pack(zlib.crc32(text, zlib.crc32(header)))


def aligned(end: int) -> int:
    """Where the next array of a payload starts, after one that ends at `end`."""
    return end + -end % ALIGNMENT


def _text(kind: Kind, meta: Mapping[str, Any], described: Sequence[Any]) -> bytes:
    try:
        check_fields(kind, meta)
    except ProtocolError as error:
        raise ValueError(str(error)) from error
    return json.dumps([dict(meta), described]).encode() if meta or described else b""


def _vector(arrays: Sequence[np.ndarray], dtype: np.dtype) -> list[memoryview]:
    if not arrays:
        return []
    (vector,) = arrays
    if vector.dtype != dtype or vector.ndim != 1:
        raise invalid("vector", f"of one dimension and dtype {dtype}", vector)
    return [as_bytes(np.ascontiguousarray(vector))]


def _document(arrays: Sequence[np.ndarray]) -> tuple[list[memoryview], list[Any]]:
    buffers, described, end = [], [], 0
    for array in arrays:
        described.append([_dtype_name(array), array.shape])
        gap = aligned(end) - end
        buffers += [memoryview(bytes(gap)), as_bytes(np.asarray(array, order="C"))]
        end += gap + array.nbytes
    return [buffer for buffer in buffers if len(buffer)], described


def _dtype_name(array: np.ndarray) -> str:
    if array.dtype.name not in DTYPES or not array.dtype.isnative:
        raise invalid("arrays", f"of dtypes among {', '.join(sorted(DTYPES))}", array.dtype)
    return array.dtype.name


def _check_sendable(
    kind: Kind, numbers: Sequence[int], meta_size: int, size: int, limit: Limit
) -> None:
    names = NUMBERS.get(kind, ())
    if len(numbers) != len(names) or not all(0 <= number < 2**63 for number in numbers):
        raise invalid("numbers", f"{len(names)} integers >= 0 {names} of {kind.name}", numbers)
    if meta_size > limit.meta:
        raise ValueError(f"{kind.name} has {meta_size} bytes of meta, allowed are {limit.meta}.")
    if size not in limit.sizes:
        raise ValueError(f"{kind.name} has {size} bytes, allowed are {limit.in_words()}.")
