"""Encode messages as frames, compared with frames made by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from kspark.compression import Compressor, Int8, Packing
from kspark.live.wire import (
    UNPROVED_SERVER,
    Kind,
    as_bytes,
    encode,
    reply_limits,
    request_limits,
)
from kspark.weights import (
    STATE,
    TRAINABLE,
    Weight,
    WeightSpec,
    Whole,
)

SIZE, PART, DTYPE = 6, 4, np.dtype("float32")
SPEC = WeightSpec((Weight("w", (PART,), "float32", TRAINABLE), Weight("m", (2,), "float32", STATE)))
REQUESTS, REPLIES = request_limits(Whole(SPEC)), reply_limits(Whole(SPEC))
DELTAS, GRADIENTS = Packing(Int8(), SPEC), Packing(Int8(), SPEC, gradients=True)
VECTOR = np.arange(SIZE, dtype=DTYPE)
PAYLOADS = {
    packing: Compressor(packing).pack(VECTOR[: packing.size]) for packing in (DELTAS, GRADIENTS)
}
PAYLOAD = VECTOR.tobytes()


def frame(kind, numbers=(), meta=None, arrays=(), limits=REQUESTS):
    return b"".join(encode(kind, numbers, meta, arrays, limits=limits))


def by_hand(kind, code, numbers, text, payload):
    """A frame made without the code under test."""
    header = struct.pack("=IBBHqqqIQ", 0x6B73706B, 1, kind, code, *numbers, len(text), len(payload))
    return header + struct.pack("=I", zlib.crc32(header + text)) + text + payload


def test_a_push_is_a_header_and_the_raw_vector():
    assert frame(Kind.PUSH, (5, 4, 64), arrays=(VECTOR,)) == by_hand(5, 1, (5, 4, 64), b"", PAYLOAD)


def test_arrays_of_a_document_start_at_multiples_of_eight():
    text = b'[{"a": 1}, [["int8", [3]], ["float64", [1]]]]'
    payload = b"\x01\x02\x03" + bytes(5) + struct.pack("=d", 2.5)
    sent = frame(Kind.REPORT, meta={"a": 1}, arrays=(np.array([1, 2, 3], "int8"), np.array([2.5])))
    assert sent == by_hand(7, 0, (0, 0, 0), text, payload)


def test_encode_does_not_copy_a_contiguous_vector():
    buffers = encode(Kind.PUSH, (0, 0, 0), None, (VECTOR,), limits=REQUESTS)
    assert np.shares_memory(np.frombuffer(buffers[1], DTYPE), VECTOR)


def test_as_bytes_shares_memory():
    as_bytes(array := np.zeros((2, 2), "int16"))[0] = 7
    assert array[0, 0] == 7
    assert len(as_bytes(np.empty((0, 3)))) == 0


@pytest.mark.parametrize(
    ("kind", "numbers", "meta", "arrays", "reason"),
    [
        (Kind.PUSH, (1, 2), None, (VECTOR,), "3 integers >= 0"),
        (Kind.PUSH, (1, 2, -3), None, (VECTOR,), "3 integers >= 0"),
        (Kind.PUSH, (1, 2, 2**63), None, (VECTOR,), "3 integers >= 0"),
        (Kind.PUSH, (1, 2, 3), None, (VECTOR[:3],), "must have 24 bytes, got 12"),
        (Kind.PUSH, (1, 2, 3), None, (), "must have 24 bytes, got 0"),
        (Kind.PUSH, (1, 2, 3), None, (VECTOR.astype("float64"),), "dtype float32"),
        (Kind.PUSH, (1, 2, 3), None, (VECTOR.reshape(2, 3),), "one dimension"),
        (Kind.PUSH, (1, 2, 3), {"a": 1}, (VECTOR,), "at most 0 bytes of meta"),
        (Kind.REPORT, (), {"a": "x" * (1 << 20)}, (), "at most 1048576 bytes of meta"),
        (Kind.REPORT, (), {}, (np.zeros(65 << 20, "int8"),), "at most 67108864"),
        (Kind.REPORT, (), {}, (np.array(["a"]),), "of dtypes among"),
        (Kind.REPORT, (), {}, (np.array([object()]),), "of dtypes among"),
        (Kind.REPORT, (), {}, (np.zeros(2, ">f4"),), "of dtypes among"),
    ],
)
def test_what_would_be_refused_is_not_encoded(kind, numbers, meta, arrays, reason):
    with pytest.raises(ValueError, match=reason):
        encode(kind, numbers, meta, arrays, limits=REQUESTS)


def test_wrong_fields_are_not_encoded():
    with pytest.raises(ValueError, match="must have the fields"):
        encode(Kind.CHALLENGE, meta={}, limits=UNPROVED_SERVER)


@pytest.mark.parametrize("packing", [DELTAS, GRADIENTS])
def test_a_compressed_push_is_a_header_and_the_payload(packing):
    limits = request_limits(packing)
    payload = PAYLOADS[packing].tobytes()
    assert len(payload) == packing.nbytes == {DELTAS: 8 + 4 + 4, GRADIENTS: 4 + 4}[packing]
    data = frame(Kind.REDUCE_PACKED, (5, 64), None, (PAYLOADS[packing],), limits)
    assert data == by_hand(12, 3, (5, 64, 0), b"", payload)
