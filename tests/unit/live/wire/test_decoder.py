"""Decode messages: received in pieces of any size, and damaged in every way."""

from __future__ import annotations

import json
import struct
import zlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.compression import Compressor, Int8, Packing, TopK
from kspark.errors import ProtocolError
from kspark.live.wire import (
    UNPROVED_CLIENT,
    UNPROVED_SERVER,
    Decoder,
    Kind,
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
PACKED_REQUESTS = request_limits(DELTAS)
GRADIENT_REQUESTS = request_limits(GRADIENTS)
PACKED_REPLIES = reply_limits(GRADIENTS)
VECTOR = np.arange(SIZE, dtype=DTYPE)
PAYLOADS = {
    packing: Compressor(packing).pack(VECTOR[: packing.size]) for packing in (DELTAS, GRADIENTS)
}
PAYLOAD = VECTOR.tobytes()
DOCUMENT = (np.arange(3, dtype="int8"), np.ones((2, 2)), np.float64(7), np.zeros((0, 5), "int32"))

MESSAGES = [
    (Kind.CHALLENGE, (), {"nonce": "ab"}, (), UNPROVED_SERVER),
    (Kind.HELLO, (3, 1), {"nonce": "ab", "proof": "cd", "spec": "ef"}, (), UNPROVED_CLIENT),
    (Kind.WELCOME, (), {"proof": "cd", "meta": {"epoch": 2}}, (), UNPROVED_SERVER),
    (Kind.PULL, (), {}, (), REQUESTS),
    (Kind.PUSH, (5, 4, 64), {}, (VECTOR,), REQUESTS),
    (Kind.REDUCE, (5, 64), {}, (VECTOR[:PART],), REQUESTS),
    (Kind.REDUCE, (5, 0), {}, (), REQUESTS),
    (Kind.REPORT, (), {"loss": 0.5, "deep": [1, {"é": None}]}, DOCUMENT, REQUESTS),
    (Kind.VECTOR, (9,), {}, (VECTOR,), REPLIES),
    (Kind.VECTOR, (9,), {"stop": True}, (VECTOR,), REPLIES),
    (Kind.DOCUMENT, (), {}, DOCUMENT, REPLIES),
    (Kind.REFUSED, (), {"error": "KSparkError", "reason": "no"}, (), REPLIES),
    (Kind.PUSH_PACKED, (5, 4, 64), {}, (PAYLOADS[DELTAS],), PACKED_REQUESTS),
    (Kind.REDUCE_PACKED, (5, 64), {}, (PAYLOADS[DELTAS],), PACKED_REQUESTS),
    (Kind.REDUCE, (5, 0), {}, (), PACKED_REQUESTS),
    (Kind.REDUCE_PACKED, (5, 64), {}, (PAYLOADS[GRADIENTS],), GRADIENT_REQUESTS),
    (Kind.REDUCE, (5, 64), {}, (VECTOR,), GRADIENT_REQUESTS),
    (Kind.VECTOR_PACKED, (9,), {"stop": True}, (PAYLOADS[GRADIENTS],), PACKED_REPLIES),
]


def names(case):
    return case[0].name


def frame(kind, numbers=(), meta=None, arrays=(), limits=REQUESTS):
    return b"".join(encode(kind, numbers, meta, arrays, limits=limits))


def same(message, case):
    kind, numbers, meta, arrays, _ = case
    assert (message.kind, message.numbers, message.meta) == (kind, numbers, meta)
    assert len(message.arrays) == len(arrays)
    for got, sent in zip(message.arrays, arrays, strict=True):
        assert got.dtype == sent.dtype and got.shape == sent.shape
        np.testing.assert_array_equal(got, sent)


def by_hand(
    kind=5, code=1, numbers=(5, 4, 64), text=b"", payload=PAYLOAD, size=None,
    magic=0x6B73706B, version=1, crc=None,
):  # fmt: skip
    """A frame made without the code under test."""
    size = len(payload) if size is None else size
    header = struct.pack("=IBBHqqqIQ", magic, version, kind, code, *numbers, len(text), size)
    crc = zlib.crc32(header + text) if crc is None else crc
    return header + struct.pack("=I", crc) + text + payload


def document(text, payload=b""):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return by_hand(kind=7, code=0, numbers=(0, 0, 0), text=text, payload=payload)


# -- encoded and decoded -----------------------------------------------------------------------


@pytest.mark.parametrize("case", MESSAGES, ids=names)
def test_what_is_encoded_is_decoded(case):
    same(Decoder(case[-1]).feed(frame(*case)), case)


@pytest.mark.parametrize("case", MESSAGES, ids=names)
def test_decoder_waits_for_the_last_byte(case):
    decoder, data = Decoder(case[-1]), frame(*case)
    for byte in data[:-1]:
        assert decoder.feed(bytes([byte])) is None
        assert decoder.in_message
    same(decoder.feed(data[-1:]), case)
    assert not decoder.in_message


@pytest.mark.parametrize("case", MESSAGES, ids=names)
def test_a_message_may_be_cut_anywhere(case):
    decoder, data = Decoder(case[-1]), frame(*case)
    for cut in range(1, len(data)):
        assert decoder.feed(data[:cut]) is None
        same(decoder.feed(data[cut:]), case)


@pytest.mark.parametrize("case", MESSAGES, ids=names)
def test_a_stream_that_ends_inside_a_message_is_an_error(case):
    data = frame(*case)
    for cut in range(1, len(data)):
        decoder = Decoder(case[-1])
        decoder.feed(data[:cut])
        with pytest.raises(ProtocolError, match="The stream ends after"):
            decoder.finish()


def test_a_stream_may_end_between_messages():
    decoder = Decoder(REQUESTS)
    decoder.finish()
    decoder.feed(frame(Kind.PULL))
    decoder.finish()


def test_a_truncated_payload_says_how_much_came():
    decoder = Decoder(REQUESTS)
    decoder.feed(by_hand()[:-10])
    with pytest.raises(ProtocolError, match="after 14 of 24 bytes of the payload of PUSH"):
        decoder.finish()


@pytest.mark.parametrize("extra", [1, 30, 5000])
def test_bytes_after_the_end_are_an_error(extra):
    for start in range(0, 72, 24):  # the end comes with the header, or in a later piece
        decoder = Decoder(REQUESTS)
        decoder.feed(by_hand()[:start])
        with pytest.raises(ProtocolError, match="bytes follow"):
            decoder.feed(by_hand()[start:] + bytes(extra))


def test_a_vector_is_received_into_its_place():
    decoder = Decoder(REQUESTS)
    decoder.vector = np.full(SIZE, -1, DTYPE)
    message = decoder.feed(frame(Kind.REDUCE, (0, 0), arrays=(VECTOR[:PART],)))
    assert np.shares_memory(message.arrays[0], decoder.vector)
    np.testing.assert_array_equal(decoder.vector, [0, 1, 2, 3, -1, -1])


def test_the_place_of_a_payload_is_handed_out():
    decoder, data = Decoder(REQUESTS), by_hand()
    decoder.vector = np.zeros(SIZE, DTYPE)
    decoder.feed(data[:52])
    place = decoder.buffer()
    assert np.shares_memory(np.frombuffer(place, "uint8"), decoder.vector)
    place[:] = data[52:]
    same(decoder.advance(len(place)), MESSAGES[4])


def test_a_vector_larger_than_its_place_does_not_touch_it():
    decoder = Decoder(REQUESTS)
    decoder.vector = np.full(2, -1, DTYPE)
    same(decoder.feed(by_hand()), MESSAGES[4])
    np.testing.assert_array_equal(decoder.vector, [-1, -1])


def test_documents_are_the_receivers_own():
    decoder = Decoder(REQUESTS)
    decoder.vector = np.zeros(SIZE, DTYPE)
    first = decoder.feed(frame(Kind.REPORT, arrays=(np.ones(4),))).arrays[0]
    decoder.feed(frame(Kind.REPORT, arrays=(np.zeros(4),)))
    np.testing.assert_array_equal(first, np.ones(4))
    assert first.flags.writeable


@pytest.mark.parametrize("name", "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split())
def test_whole_numbers_travel(name):
    same(*both(np.array([[0, 1], [1, 0]], name)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
def test_floats_travel_bit_by_bit(dtype):
    array = np.array([np.nan, np.inf, -0.0, 1e-3], dtype)
    message, case = both(array)
    assert message.arrays[0].dtype == array.dtype
    assert message.arrays[0].tobytes() == array.tobytes()


def test_an_array_that_is_not_contiguous_travels():
    same(*both(np.arange(12).reshape(3, 4).T))
    case = (Kind.PUSH, (0, 0, 0), {}, (np.arange(12, dtype=DTYPE)[::2],), REQUESTS)
    same(Decoder(REQUESTS).feed(frame(*case)), case)


def test_a_long_meta_arrives():
    case = (Kind.REPORT, (), {"text": "x" * 50_000}, DOCUMENT, REQUESTS)
    data = frame(*case)
    decoder = Decoder(REQUESTS)
    for start in range(0, len(data), 999):
        message = decoder.feed(data[start : start + 999])
    same(message, case)


def test_not_a_number_is_json_here():
    message = Decoder(REQUESTS).feed(frame(Kind.REPORT, meta={"loss": float("nan")}))
    assert np.isnan(message.meta["loss"])


def both(array):
    case = (Kind.REPORT, (), {}, (array,), REQUESTS)
    return Decoder(REQUESTS).feed(frame(*case)), case


# -- what is refused ---------------------------------------------------------------------------

BAD_FRAMES = {
    "garbage": (b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n", "first bytes"),
    "pickle": (b"\x80\x04\x95" + bytes(60), "first bytes"),
    "other byte order": (by_hand(magic=0x6B70736B), "first bytes"),
    "version": (by_hand(version=2), "version 2, expected 1"),
    "unknown kind": (by_hand(kind=99), "kind 99 is not accepted"),
    "unexpected kind": (by_hand(kind=8), "kind 8 is not accepted"),
    "meta where none belongs": (by_hand(text=b"[{}, []]"), "8 bytes of meta, expected at most 0"),
    "long meta": (document(b" " * (1 << 20) + b" "), "1048577 bytes of meta, expected at most"),
    "payload of 10 GB": (by_hand(size=10 << 30), "10737418240 bytes for PUSH, expected 24"),
    "document of 10 GB": (by_hand(7, 0, (0, 0, 0), size=10 << 30), "expected at most 67108864"),
    "short vector": (by_hand(payload=bytes(20)), "20 bytes for PUSH, expected 24"),
    "part of a weight": (by_hand(6, 1, (0, 0, 0), payload=bytes(20)), "expected 0 or 16 or 24"),
    "other dtype": (by_hand(code=2), "dtype 2 for PUSH, expected float32"),
    "no dtype": (by_hand(code=0), "dtype 0 for PUSH, expected float32"),
    "document with a dtype": (by_hand(7, 1, (0, 0, 0), payload=b""), "dtype 1 for REPORT"),
    "negative number": (by_hand(numbers=(5, -4, 64)), "expected 3 numbers >= 0"),
    "number too many": (by_hand(6, 1, (5, 4, 1)), "expected 2 numbers >= 0"),
    "checksum": (by_hand(crc=1), "checksum of PUSH"),
    "no json": (document(b"[{}, [}]"), "is not JSON"),
    "no text": (document(b"\xff\xfe[]"), "is not JSON"),
    "nested too deep": (document(b"[" * 100_000), "is not JSON"),
    "number too long": (document(b"[{}, [" + b"9" * 9999 + b"]]"), "not JSON|must be described"),
    "not a pair": (document([{}, [], []]), r"must be \[fields, arrays\]"),
    "no object": (document([[], []]), r"must be \[fields, arrays\]"),
    "no list": (document([{}, {}]), r"must be \[fields, arrays\]"),
    "scalar": (document(7), r"must be \[fields, arrays\]"),
    "no description": (document([{}, [7]]), "must be described"),
    "description of three": (document([{}, [["int8", [1], 0]]], b"1"), "must be described"),
    "dtype no string": (document([{}, [[8, [1]]]], b"1"), "must be described"),
    "shape no list": (document([{}, [["int8", 1]]], b"1"), "must be described"),
    "objects": (document([{}, [["object", [1]]]], bytes(8)), "'object' cannot be sent"),
    "text": (document([{}, [["<U2", [1]]]], bytes(8)), "'<U2' cannot be sent"),
    "negative shape": (document([{}, [["int8", [-1]]]], b"1"), "at most 32 integers >= 0"),
    "shape of floats": (
        document([{}, [["int8", [1.0]]]], b"1"),
        "at most 32 integers >= 0",
    ),
    "shape of booleans": (
        document([{}, [["int8", [True]]]], b"1"),
        "at most 32 integers >= 0",
    ),
    "33 dimensions": (
        document([{}, [["int8", [1] * 33]]], b"1"),
        "at most 32 integers >= 0",
    ),
    "too far": (document([{}, [["int8", [0, 2**40, 2**40]]]]), "must not span more than"),
    "too little payload": (
        document([{}, [["int8", [9]]]], b"1"),
        "take 9 bytes, but the payload has 1",
    ),
    "too much payload": (
        document([{}, [["int8", [1]]]], b"12"),
        "take 1 bytes, but the payload has 2",
    ),
    "payload of nothing": (document([{}, []], b"1"), "take 0 bytes, but the payload has 1"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_what_is_no_message_is_refused(name):
    data, reason = BAD_FRAMES[name]
    with pytest.raises(ProtocolError, match=reason):
        Decoder(REQUESTS).feed(data)


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_it_is_refused_byte_by_byte_too(name):
    data, reason = BAD_FRAMES[name]
    with pytest.raises(ProtocolError, match=reason):
        feed_bytewise(Decoder(REQUESTS), data)


def feed_bytewise(decoder, data):
    for byte in data:
        decoder.feed(bytes([byte]))


def test_limits_hold_before_anything_is_received(monkeypatch):
    monkeypatch.setattr(np, "empty", None)
    decoder = Decoder(REQUESTS)
    with pytest.raises(ProtocolError, match="10737418240"):
        decoder.feed(by_hand(7, 0, (0, 0, 0), payload=b"", size=10 << 30))


def test_a_described_vector_is_refused():
    data = by_hand(8, 1, (1, 0, 0), b'[{}, [["float32", [6]]]]')
    with pytest.raises(ProtocolError, match="must not describe arrays"):
        Decoder(REPLIES).feed(data)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "must have the fields"),
        ({"nonce": "a", "more": 1}, "must have the fields"),
        ({"nonce": 1}, "`nonce` of CHALLENGE must be of type str"),
    ],
)
def test_fields_are_checked(fields, reason):
    text = json.dumps([fields, []]).encode()
    with pytest.raises(ProtocolError, match=reason):
        Decoder(UNPROVED_SERVER).feed(by_hand(1, 0, (0, 0, 0), text, b""))


def test_a_meta_that_is_missing_has_no_fields():
    with pytest.raises(ProtocolError, match="must have the fields"):
        Decoder(UNPROVED_SERVER).feed(by_hand(1, 0, (0, 0, 0), b"", b""))


def test_a_client_may_send_little_before_it_is_authenticated():
    text = b'[{"nonce": "' + b"a" * 500 + b'"}, []]'
    with pytest.raises(ProtocolError, match="expected at most 512"):
        Decoder(UNPROVED_CLIENT).feed(by_hand(2, 0, (0, 0, 0), text, b""))
    with pytest.raises(ProtocolError, match="kind 5 is not accepted"):
        Decoder(UNPROVED_CLIENT).feed(by_hand())


def test_a_dtype_that_numpy_does_not_know_here_is_refused(monkeypatch):
    monkeypatch.setattr("kspark.live.wire.decoder.DTYPES", {"int128"})
    with pytest.raises(ProtocolError, match="needs the package ml_dtypes"):
        Decoder(REQUESTS).feed(document([{}, [["int128", [1]]]], bytes(16)))


# -- properties --------------------------------------------------------------------------------


class Total:
    """A receiver whose state changes with every message that it accepts."""

    def __init__(self):
        self.sum = np.zeros(SIZE)
        self.seen = []

    def take(self, message):
        if message is not None:
            self.seen.append((message.kind, message.numbers, message.meta))
            self.sum += sum(a.sum() for a in message.arrays if a.dtype == DTYPE)

    def untouched(self):
        return not self.seen and not self.sum.any()


@pytest.mark.parametrize("packing", [DELTAS, Packing(TopK(0.5), SPEC)])
@given(data=st.data())
def test_a_flipped_or_cut_compressed_push_is_numbers_or_an_error(packing, data):
    """It is refused, or it is a vector of the right size; nothing else is touched."""
    limits = request_limits(packing)
    payload = Compressor(packing).pack(VECTOR)
    good = bytearray(frame(Kind.PUSH_PACKED, (5, 4, 64), None, (payload,), limits))
    for _ in range(data.draw(st.integers(0, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(good)) | st.just(len(good)))
    out, decoder = np.full(SIZE + 2, 9, DTYPE), Decoder(limits)
    try:
        message = decoder.feed(good[:cut])
        decoder.finish()
        if message is not None:
            vector = packing.unpack(message.arrays[0], out)
            assert (message.kind, message.numbers) == (Kind.PUSH_PACKED, (5, 4, 64))
            assert vector.shape == (SIZE,)
    except ProtocolError:
        assert out.tolist() == [9] * (SIZE + 2)
    assert out[SIZE:].tolist() == [9, 9]


REFUSED_WITH_A_PACKING = {
    "an uncompressed push": (PACKED_REQUESTS, by_hand(), "kind 5 is not accepted"),
    "an uncompressed delta": (
        PACKED_REQUESTS, by_hand(kind=6, numbers=(5, 4, 0)), "24 bytes for REDUCE, expected 0"),
    "an uncompressed gradient": (
        GRADIENT_REQUESTS, by_hand(kind=6, numbers=(5, 4, 0), payload=PAYLOAD[:16]),
        "16 bytes for REDUCE, expected 0 or 24"),
    "a push of a gradient": (
        GRADIENT_REQUESTS, by_hand(kind=11, code=3, payload=bytes(8)), "kind 11 is not accept"),
    "too short": (
        PACKED_REQUESTS, by_hand(kind=11, code=3, payload=bytes(15)),
        "15 bytes for PUSH_PACKED, expected 16"),
    "10 GB": (
        PACKED_REQUESTS, by_hand(kind=11, code=3, payload=b"", size=10 << 30),
        "10737418240 bytes for PUSH_PACKED, expected 16"),
    "another dtype": (
        PACKED_REQUESTS, by_hand(kind=11, code=1, payload=bytes(16)), "expected uint8"),
    "without a packing": (
        REQUESTS, by_hand(kind=11, code=3, payload=bytes(16)), "kind 11 is not accepted"),
    "an answer nobody compresses": (
        reply_limits(DELTAS),
        by_hand(kind=13, code=3, numbers=(1, 0, 0), payload=bytes(16)), "kind 13 is not accept"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_WITH_A_PACKING)
def test_the_packing_decides_which_vectors_are_compressed(name):
    limits, data, reason = REFUSED_WITH_A_PACKING[name]
    with pytest.raises(ProtocolError, match=reason):
        Decoder(limits).feed(data)


@given(st.sampled_from(MESSAGES), st.lists(st.integers(0, 400), max_size=6))
def test_any_cut_gives_the_same_message(case, cuts):
    data = frame(*case)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    decoder, start, messages = Decoder(case[-1]), 0, []
    for end in ends:
        messages.append(decoder.feed(data[start:end]))
        start = end
    same(next(m for m in messages if m is not None), case)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_protocol_errors(data):
    state, decoder = Total(), Decoder(REQUESTS)
    try:
        state.take(decoder.feed(data))
        decoder.finish()
    except ProtocolError:
        pass
    assert state.untouched()


@given(st.sampled_from(MESSAGES), st.data())
def test_flipped_and_cut_bytes_change_nothing(case, data):
    """A flipped bit before the payload, or a cut anywhere, is never taken for a message."""
    good = bytearray(frame(*case))
    payload = sum(len(buffer) for buffer in encode(*case[:4], limits=case[4])[1:])
    position = data.draw(st.integers(0, len(good) - payload - 1))
    good[position] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(good)))
    state, decoder = Total(), Decoder(case[-1])
    try:
        state.take(decoder.feed(good[:cut]))
        decoder.finish()
    except ProtocolError:
        pass
    assert state.untouched()


@given(st.sampled_from(MESSAGES), st.data())
def test_a_flipped_payload_changes_only_numbers(case, data):
    """Payloads have no checksum of ours; whatever they hold, the message is the same one."""
    good = bytearray(frame(*case))
    payload = sum(len(buffer) for buffer in encode(*case[:4], limits=case[4])[1:])
    if payload:
        good[-data.draw(st.integers(1, payload))] ^= data.draw(st.integers(1, 255))
    message = Decoder(case[-1]).feed(good)
    assert (message.kind, message.numbers, message.meta) == case[:3]
    assert [a.shape for a in message.arrays] == [a.shape for a in case[3]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["int8", "float32", "bfloat16"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)  # fmt: skip


@given(JSON, st.lists(JSON, max_size=3), st.binary(max_size=40))
def test_any_json_is_taken_or_refused(anything, described, payload):
    """Frames that are right up to the JSON: the checksum does not protect the code behind it."""
    for content in (anything, [{}, anything], [{}, described]):
        try:
            message = Decoder(REQUESTS).feed(document(content, payload))
        except ProtocolError:
            continue
        assert payload_of(message.arrays) <= len(payload)


def payload_of(arrays):
    return sum(a.nbytes for a in arrays)
