"""The incremental decoder: bytes in, however they were cut; checked messages out."""

from __future__ import annotations

import json
from math import prod
from typing import Any, NamedTuple

import numpy as np

from kspark.errors import ProtocolError
from kspark.live.wire.frames import (
    DTYPES,
    HEADER,
    MAGIC,
    PREFIX_SIZE,
    VECTOR_CODES,
    VERSION,
    aligned,
    as_bytes,
    checksum,
)
from kspark.live.wire.messages import NUMBERS, Kind, Limit, Limits, Message, check_fields

# Header and a usual meta arrive in one read.
_FIRST_READ = 4096
_MAX_DIMENSIONS = 32
# An array without elements may have long other dimensions. Beyond this numpy refuses some shapes.
_MAX_EXTENT = 2**47


class _Header(NamedTuple):
    kind: Kind
    numbers: tuple[int, ...]
    end: int  # of the meta
    size: int  # of the payload


class Decoder:
    """Turns received bytes into messages, one at a time.

    Either `feed` it bytes, or let a socket write into `buffer()` and tell
    `advance` how many: a payload is then received straight into its place.

    Args:
        limits: What to accept.

    Attributes:
        limits: As given; may be replaced between messages.
        vector: Contiguous array to receive vectors into, or `None` for a new
            array each time; may be replaced between messages.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.vector: np.ndarray | None = None
        self._head = bytearray(_FIRST_READ)
        self._reset()

    def _reset(self) -> None:
        self._received = 0  # bytes in `_head`, later in `_payload`
        self._header: _Header | None = None
        self._message: Message | None = None
        self._payload: memoryview | None = None

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._received > 0 or self._payload is not None

    def feed(self, data: bytes | bytearray | memoryview) -> Message | None:
        """Take in bytes. See `advance`."""
        rest, message = memoryview(data), None
        while rest:
            if message is not None:
                raise ProtocolError(f"{len(rest)} bytes follow the end of {message.kind.name}.")
            place = self.buffer()
            count = min(len(rest), len(place))
            place[:count] = rest[:count]
            message, rest = self.advance(count), rest[count:]
        return message

    def buffer(self) -> memoryview:
        """Where the next bytes belong. Never empty."""
        place = memoryview(self._head) if self._payload is None else self._payload
        return place[self._received :]

    def advance(self, count: int) -> Message | None:
        """Take in the first `count` bytes of `buffer()`.

        Returns:
            The `Message` that they complete, or `None`.

        Raises:
            ProtocolError: If they belong to no acceptable message. Nothing else is
                raised, and the decoder is of no use afterwards.
        """
        self._received += count
        if self._payload is None:
            self._read_head()
        if self._payload is None or self._received < len(self._payload):
            return None
        message = self._message
        self._reset()
        return message

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            ProtocolError: If it ended inside a message.
        """
        if self._message is not None and self._payload is not None:
            raise ProtocolError(
                f"Stream ends after {self._received} of {len(self._payload)} bytes "
                f"of the payload of {self._message.kind.name}."
            )
        if self._received:
            raise ProtocolError(f"Stream ends after {self._received} bytes, before a payload.")

    def _read_head(self) -> None:
        if self._received < PREFIX_SIZE:
            return
        if self._header is None:
            self._header = _read_header(self._head, self.limits)
            self._make_room(self._header.end)
        header = self._header
        if self._received < header.end:
            return
        early = self._received - header.end
        if early > header.size:
            raise ProtocolError(f"{early - header.size} bytes follow {header.kind.name}.")
        meta, described = _read_meta(bytes(self._head[: header.end]), header.kind)
        payload = self._place(header)
        arrays = _read_arrays(described, payload, self.limits[header.kind])
        self._message = Message(header.kind, header.numbers, meta, arrays)
        payload[:early] = self._head[header.end : self._received]
        self._payload, self._received = payload, early

    def _make_room(self, end: int) -> None:
        missing = end - len(self._head)
        if missing > 0:
            # A new object: a bytearray cannot grow while somebody has a view of it.
            self._head = self._head + bytes(missing)

    def _place(self, header: _Header) -> memoryview:
        vector = self.vector if self.limits[header.kind].dtype is not None else None
        if vector is None or vector.nbytes < header.size:
            vector = np.empty(header.size, np.uint8)
        return as_bytes(vector)[: header.size]


def _read_header(head: bytearray, limits: Limits) -> _Header:
    magic, version, number, code, *numbers, meta_size, size = HEADER.unpack_from(head)
    if magic != MAGIC:
        raise ProtocolError("The first bytes are not those of a kspark message.")
    if version != VERSION:
        raise ProtocolError(f"Got protocol version {version}, expected {VERSION}.")
    kind = next((kind for kind in limits if kind == number), None)
    if kind is None:
        raise ProtocolError(f"A message of kind {number} is not acceptable now.")
    limit, count = limits[kind], len(NUMBERS.get(kind, ()))
    if meta_size > limit.meta:
        raise ProtocolError(f"Got {meta_size} bytes of meta, expected at most {limit.meta}.")
    if size not in limit.sizes:
        raise ProtocolError(f"Got {size} bytes for {kind.name}, expected {limit.in_words()}.")
    if code != VECTOR_CODES[limit.dtype]:
        raise ProtocolError(f"Got dtype {code} for {kind.name}, expected {limit.dtype}.")
    if min(numbers) < 0 or any(numbers[count:]):
        raise ProtocolError(f"Got the numbers {numbers}, expected {count} of them, all >= 0.")
    return _Header(kind, tuple(numbers[:count]), PREFIX_SIZE + meta_size, size)


def _read_meta(head: bytes, kind: Kind) -> tuple[dict[str, Any], list[Any]]:
    """The fields and the description of the payload, from everything before the payload."""
    text = head[PREFIX_SIZE:]
    if head[HEADER.size : PREFIX_SIZE] != checksum(head[: HEADER.size], text):
        raise ProtocolError(f"The checksum of {kind.name} does not match.")
    meta, described = _read_text(text, kind) if text else ({}, [])
    check_fields(kind, meta)
    return meta, described


def _read_text(text: bytes, kind: Kind) -> tuple[dict[str, Any], list[Any]]:
    try:
        content = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"The meta of {kind.name} is not JSON.") from error
    if not _is_list(content, 2) or not isinstance(content[0], dict) or not _is_list(content[1]):
        raise ProtocolError(f"The meta of {kind.name} must be [fields, arrays].")
    return content[0], content[1]


def _read_arrays(described: list[Any], payload: memoryview, limit: Limit) -> tuple[np.ndarray, ...]:
    if limit.dtype is None:
        return _views(described, payload)
    if described:
        raise ProtocolError("A vector must not be described.")
    return (np.frombuffer(payload, limit.dtype),) if len(payload) else ()


def _views(described: list[Any], payload: memoryview) -> tuple[np.ndarray, ...]:
    """The arrays that the description finds in the payload, which they must fill exactly."""
    arrays, end = [], 0
    for entry in described:
        dtype, shape = _read_description(entry)
        start = aligned(end)
        end = start + prod(shape) * dtype.itemsize
        if end > len(payload):
            break
        arrays.append(np.ndarray(shape, dtype, buffer=payload, offset=start))
    if end != len(payload):
        raise ProtocolError(f"The arrays take {end} bytes, the payload has {len(payload)}.")
    return tuple(arrays)


def _read_description(entry: Any) -> tuple[np.dtype, tuple[int, ...]]:
    if not _is_list(entry, 2) or not isinstance(entry[0], str) or not _is_list(entry[1]):
        raise ProtocolError("An array must be described by [dtype, shape].")
    name, shape = entry
    if name not in DTYPES:
        raise ProtocolError(f"Arrays of dtype {name[:50]!r} do not travel.")
    if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ProtocolError("A shape must be a short list of integers >= 0.")
    if prod(max(n, 1) for n in shape) > _MAX_EXTENT:
        raise ProtocolError(f"A shape must not extend over more than {_MAX_EXTENT} elements.")
    try:
        return np.dtype(name), tuple(shape)
    except TypeError as error:
        raise ProtocolError(f"The dtype {name} needs the package ml_dtypes here.") from error


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list) and length in (None, len(value))
