"""The incremental decoder: it takes received bytes in pieces of any size, and checks messages."""

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

# Bytes. Header and a typical meta arrive in one read.
_FIRST_READ = 4096
_MAX_DIMENSIONS = 32
# Dimensions of an array without elements may be long. NumPy refuses shapes that exceed this.
_MAX_EXTENT = 2**47


class _Header(NamedTuple):
    kind: Kind
    numbers: tuple[int, ...]
    end: int  # end of the meta in bytes
    size: int  # bytes of the payload


class Decoder:
    """Decodes received bytes to messages, one at a time.

    Either pass bytes to `feed`. Or let a socket write into `buffer()`, and pass the number of
    bytes to `advance`, which receives a payload without a copy.

    Args:
        limits: `Limits`, the messages to accept.

    Attributes:
        limits: As the argument. It may be replaced between messages.
        vector: Contiguous array to receive vectors into, or `None` to allocate a new array for
            each one. It may be replaced between messages.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.vector: np.ndarray | None = None
        self._head = bytearray(_FIRST_READ)
        self._reset()

    def _reset(self) -> None:
        self._received = 0  # Bytes in `_head`, and later in `_payload`.
        self._header: _Header | None = None
        self._message: Message | None = None
        self._payload: memoryview | None = None

    @property
    def in_message(self) -> bool:
        """Whether a message has been received in part."""
        return self._received > 0 or self._payload is not None

    def feed(self, data: bytes | bytearray | memoryview) -> Message | None:
        """Decode bytes. See `advance`."""
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
        """Return the memory for the next bytes, which is never empty."""
        place = memoryview(self._head) if self._payload is None else self._payload
        return place[self._received :]

    def advance(self, count: int) -> Message | None:
        """Decode the first `count` bytes of `buffer()`.

        Returns:
            The `Message` that they complete, or `None` if it is not complete.

        Raises:
            ProtocolError: If the bytes are not part of an acceptable message. No other
                exception is raised, and the decoder cannot be used afterwards.
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
        """Check, at the end of the stream, that no message is incomplete.

        Raises:
            ProtocolError: If a message is incomplete.
        """
        if self._message is not None and self._payload is not None:
            raise ProtocolError(
                f"The stream ends after {self._received} of {len(self._payload)} bytes "
                f"of the payload of {self._message.kind.name}."
            )
        if self._received:
            raise ProtocolError(f"The stream ends after {self._received} bytes, before a payload.")

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
            # A new object, because a bytearray with views cannot grow.
            self._head = self._head + bytes(missing)

    def _place(self, header: _Header) -> memoryview:
        vector = self.vector if self.limits[header.kind].dtype is not None else None
        if vector is None or vector.nbytes < header.size:
            vector = np.empty(header.size, np.uint8)
        return as_bytes(vector)[: header.size]


def _read_header(head: bytearray, limits: Limits) -> _Header:
    magic, version, number, code, *numbers, meta_size, size = HEADER.unpack_from(head)
    if magic != MAGIC:
        raise ProtocolError("The first bytes do not belong to a kspark message.")
    if version != VERSION:
        raise ProtocolError(f"Got protocol version {version}, expected {VERSION}.")
    kind = next((kind for kind in limits if kind == number), None)
    if kind is None:
        raise ProtocolError(f"A message of kind {number} is not accepted here.")
    limit, count = limits[kind], len(NUMBERS.get(kind, ()))
    if meta_size > limit.meta:
        raise ProtocolError(f"Got {meta_size} bytes of meta, expected at most {limit.meta}.")
    if size not in limit.sizes:
        raise ProtocolError(f"Got {size} bytes for {kind.name}, expected {limit.in_words()}.")
    if code != VECTOR_CODES[limit.dtype]:
        raise ProtocolError(f"Got dtype {code} for {kind.name}, expected {limit.dtype}.")
    if min(numbers) < 0 or any(numbers[count:]):
        raise ProtocolError(f"Got the numbers {numbers}, expected {count} numbers >= 0.")
    return _Header(kind, tuple(numbers[:count]), PREFIX_SIZE + meta_size, size)


def _read_meta(head: bytes, kind: Kind) -> tuple[dict[str, Any], list[Any]]:
    """Return the fields, and the description of the payload's arrays."""
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
        raise ProtocolError("A message with a vector must not describe arrays.")
    return (np.frombuffer(payload, limit.dtype),) if len(payload) else ()


def _views(described: list[Any], payload: memoryview) -> tuple[np.ndarray, ...]:
    """Return the described arrays as views. They must fill the payload exactly."""
    arrays, end = [], 0
    for entry in described:
        dtype, shape = _read_description(entry)
        start = aligned(end)
        end = start + prod(shape) * dtype.itemsize
        if end > len(payload):
            break
        arrays.append(np.ndarray(shape, dtype, buffer=payload, offset=start))
    if end != len(payload):
        raise ProtocolError(f"The arrays take {end} bytes, but the payload has {len(payload)}.")
    return tuple(arrays)


def _read_description(entry: Any) -> tuple[np.dtype, tuple[int, ...]]:
    if not _is_list(entry, 2) or not isinstance(entry[0], str) or not _is_list(entry[1]):
        raise ProtocolError("An array must be described by [dtype, shape].")
    name, shape = entry
    if name not in DTYPES:
        raise ProtocolError(f"Arrays of dtype {name[:50]!r} cannot be sent.")
    if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ProtocolError(f"A shape must be a list of at most {_MAX_DIMENSIONS} integers >= 0.")
    if prod(max(n, 1) for n in shape) > _MAX_EXTENT:
        raise ProtocolError(f"A shape must not span more than {_MAX_EXTENT} elements.")
    try:
        return np.dtype(name), tuple(shape)
    except TypeError as error:
        raise ProtocolError(f"The dtype {name} needs the package ml_dtypes here.") from error


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list) and length in (None, len(value))
