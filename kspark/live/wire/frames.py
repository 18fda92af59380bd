"""Encode messages as frames. The package's docstring shows the format."""

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
# The header's code for the dtype of a vector; 0 if the payload is not a vector.
VECTOR_CODES: Mapping[np.dtype | None, int] = {
    None: 0,
    np.dtype("float32"): 1,
    np.dtype("float64"): 2,
    PACKED: 3,
}
# Dtypes that may be sent: numbers of a fixed size. NumPy itself has no bfloat16.
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
    """Encode one message for sending, without copying contiguous arrays.

    Args:
        kind: `Kind`.
        numbers: Sequence of integers >= 0, as listed in `NUMBERS` for this kind. Defaults to `()`.
        meta: Mapping of JSON values with the fields listed in `FIELDS` for this kind. Defaults to
            `None`, no fields.
        arrays: Sequence of arrays: depending on the kind, at most one vector, or any arrays of
            `DTYPES`. Defaults to `()`.
        limits: `Limits` of the receiver.

    Returns:
        List of buffers to send in order. They are views: send them before changing an array.

    Raises:
        ValueError: If the receiver would not accept the message.
        TypeError: If `meta` contains a value that JSON does not support.
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
    """Return the memory of a contiguous array as bytes, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def checksum(header: bytes, text: bytes) -> bytes:
    """Return the checksum of header and meta, the four bytes between them."""
    return CHECKSUM.pack(zlib.crc32(text, zlib.crc32(header)))


def aligned(end: int) -> int:
    """Return the start of an array in a payload, after an array that ends at `end`."""
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
        if array.dtype.name not in DTYPES or not array.dtype.isnative:
            raise invalid("arrays", f"of dtypes among {', '.join(sorted(DTYPES))}", array.dtype)
        described.append([array.dtype.name, array.shape])
        gap = aligned(end) - end
        buffers += [memoryview(bytes(gap)), as_bytes(np.asarray(array, order="C"))]
        end += gap + array.nbytes
    return [buffer for buffer in buffers if len(buffer)], described


def _check_sendable(
    kind: Kind, numbers: Sequence[int], meta_size: int, size: int, limit: Limit
) -> None:
    names = NUMBERS.get(kind, ())
    if len(numbers) != len(names) or not all(0 <= number < 2**63 for number in numbers):
        raise invalid("numbers", f"{len(names)} integers >= 0 {names} of {kind.name}", numbers)
    if meta_size > limit.meta:
        raise ValueError(
            f"{kind.name} must have at most {limit.meta} bytes of meta, got {meta_size}."
        )
    if size not in limit.sizes:
        raise ValueError(f"{kind.name} must have {limit.in_words()} bytes, got {size}.")
