"""Compressed deltas and gradients between a real client and a real server."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from kspark.compression import Compressor, Float16, Int8, Packing, TopK
from kspark.errors import ProtocolError
from kspark.live.transport.channel import Channel
from kspark.live.transport.handshake import introduce
from kspark.live.wire import UNPROVED_SERVER, Instructions, Kind, encode, request_limits
from kspark.weights import Weight, WeightSpec, Whole

F4 = np.dtype("float32")
CODECS = [Float16(), Int8(), TopK(0.5)]
FRAME = 48


def names(codec):
    return codec.name


@pytest.fixture
def out():
    return np.full(6, 9, "f4")


@pytest.mark.parametrize("codec", CODECS, ids=names)
def test_a_compressed_push_is_unpacked_and_counted(serve, client_of, spec, handler, out, codec):
    packing = Packing(codec, spec)
    client = client_of(serve(packing=packing), packing=packing)
    compressor, before = Compressor(packing), client.bytes_sent
    delta = np.array([8, 4, -2, 1, 0.1, -0.1], "f4")
    payload = compressor.pack(delta)
    reply = client.push(payload, sequence=3, base_version=1, num_examples=64, out=out)
    assert handler.calls[1] == ("push", 0, 0, 3, 1, 64)
    assert (reply.version, reply.instructions, reply.filled) == (
        2, Instructions(learning_rate=0.5), 6,
    )  # fmt: skip
    expected = delta.copy()
    expected[:4] -= compressor.residual
    assert (
        handler.weights.tolist() == out.tolist() == (np.arange(6, dtype="f4") + expected).tolist()
    )
    assert client.bytes_sent - before == FRAME + packing.nbytes


def test_gradients_go_and_come_compressed(serve, client_of, spec, handler):
    packing = Packing(Int8(), spec, gradients=True)
    client = client_of(serve(packing=packing), packing=packing)
    mean = Compressor(packing).pack(np.array([127, -127, 3, 4], "f4"))
    handler.answer = mean
    sent, received = client.bytes_sent, client.bytes_received
    out = np.full(6, 9, "f4")
    gradient = Compressor(packing).pack(np.array([127, 1, 2, 3], "f4"))
    reply = client.reduce(gradient, sequence=5, num_examples=8, out=out)
    assert handler.calls[1] == ("reduce", 0, 0, 5, 8, [127, 1, 2, 3])
    assert (reply.version, reply.filled) == (7, 4)
    assert out[:4].tolist() == [127, -127, 3, 4]
    assert client.bytes_sent - sent == FRAME + 4 + 4
    word = len('[{"stop": false}, []]')
    assert client.bytes_received - received == FRAME + word + 4 + 4
    # Weights, at the end of an epoch, are not compressed; and neither is the answer to them.
    handler.answer = 6
    reply = client.reduce(np.arange(6, dtype="f4"), sequence=6, num_examples=8, out=out)
    assert handler.calls[2] == ("reduce", 0, 0, 6, 8, [0, 1, 2, 3, 4, 5])
    assert (reply.filled, out.tolist()) == (6, [-1] * 6)


def test_an_answer_is_not_written_over_while_it_is_read(serve, client_of, handler):
    """It is received into the vector that it is unpacked into, piece by piece."""
    large = WeightSpec((Weight("w", (100_000,), "float32", "trainable"),))
    packing = Packing(Int8(), large, gradients=True)
    client = client_of(serve(packing=packing), packing=packing)
    mean = np.random.default_rng(0).normal(size=100_000).astype("f4")
    handler.answer = Compressor(packing).pack(mean)
    out = np.empty(100_000, "f4")
    client.reduce(None, sequence=1, num_examples=0, out=out)
    np.testing.assert_allclose(out, mean, atol=0.03)


def test_who_has_nothing_left_takes_part_with_nothing(serve, client_of, spec, handler, out):
    packing = Packing(Float16(), spec)
    client = client_of(serve(packing=packing), packing=packing)
    handler.answer = 6
    client.reduce(None, sequence=1, num_examples=0, out=out)
    assert handler.calls[1] == ("reduce", 0, 0, 1, 0, None)


def test_an_answer_that_does_not_fit_is_refused(serve, client_of, spec, handler):
    packing = Packing(Int8(), spec, gradients=True)
    client = client_of(serve(packing=packing), packing=packing)
    handler.answer = Compressor(packing).pack(np.ones(4, "f4"))
    out = np.empty(3, "f4")
    with pytest.raises(ProtocolError, match="The answer has 4 elements, but `out` has 3"):
        client.reduce(None, sequence=1, num_examples=0, out=out)


def test_both_ends_compress_alike_or_not_at_all(serve, client_of, spec, handler):
    """The driver says how; a replica that does it in another way is not let in."""
    codecs = (Float16(), TopK(0.5), TopK(0.4))
    kinds = [Whole(spec), *(Packing(codec, spec) for codec in codecs)]
    kinds.append(Packing(Float16(), spec, gradients=True))
    for own in kinds:
        server = serve(packing=own)
        for other in kinds:
            if other is own:
                client_of(server, packing=other)
                continue
            with pytest.raises(ProtocolError, match="or its compression, differ"):
                client_of(server, packing=other)
    assert handler.calls == [("hello", 0, 0)] * len(kinds)


def test_without_compression_a_push_is_what_it_was(serve, client_of, insider, handler):
    """Byte for byte: the frame by hand is taken."""
    sock = insider(serve())
    header = struct.pack("=IBBHqqqIQ", 0x6B73706B, 1, 5, 1, 1, 0, 1, 0, 24)
    sock.sendall(header + struct.pack("=I", zlib.crc32(header)) + np.ones(6, "f4").tobytes())
    assert len(sock.recv(FRAME + 100)) > FRAME
    assert handler.weights.tolist() == [1, 2, 3, 4, 5, 6]


def hostile(packing, change):
    """A frame around a payload that is changed."""
    payload = Compressor(packing).pack(np.array([8, 4, -2, 1, 0.1, -0.1], "f4"))
    change(payload)
    limits = request_limits(packing)
    return b"".join(encode(Kind.PUSH_PACKED, (1, 0, 1), None, (payload,), limits=limits))


def put(start, dtype, values):
    def change(payload):
        array = np.asarray(values, dtype)
        payload[start : start + array.nbytes] = array.view("u1")

    return change


# Of a delta with two values of state, 8 bytes. Int8: a scale. TopK: two values, two positions.
MALFORMED = {
    "scale that is NaN": (Int8(), put(8, "f4", [np.nan]), "A scale must be"),
    "negative scale": (Int8(), put(8, "f4", [-1]), "A scale must be"),
    "infinite scale": (Int8(), put(8, "f4", [np.inf]), "A scale must be"),
    "position out of range": (
        TopK(0.5),
        put(16, "u4", [0, 4]),
        "Got position 4, expected positions below 4",
    ),
    "position far out": (TopK(0.5), put(16, "u4", [0, 2**32 - 1]), "Got position 4294967295"),
    "position twice": (TopK(0.5), put(16, "u4", [1, 1]), "must be strictly ascending"),
    "positions unsorted": (TopK(0.5), put(16, "u4", [2, 0]), "must be strictly ascending"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_payload_closes_its_connection_and_changes_nothing(
    name, serve, stranger, client_of, spec, token, handler, caplog
):
    codec, change, reason = MALFORMED[name]
    packing = Packing(codec, spec)
    server = serve(packing=packing)
    bystander = client_of(server, shard=1, packing=packing)
    sock = stranger(server)
    introduce(Channel(sock, UNPROVED_SERVER, 30.0), token, packing.digest(), 0, 0)
    sock.sendall(hostile(packing, change))
    shard, attempt, told = handler.lost_replica()
    assert (shard, attempt) == (0, 0)
    assert reason in told
    assert reason in caplog.text
    assert handler.calls == [("hello", 1, 0), ("hello", 0, 0)]
    assert handler.weights.tolist() == [0, 1, 2, 3, 4, 5]
    assert bystander.pull(np.empty(6, F4)).filled == 6


@pytest.mark.parametrize("size", [15, 17, 24])
def test_a_payload_of_another_length_does_so_too(size, serve, stranger, spec, token, handler):
    packing = Packing(Int8(), spec)
    sock = stranger(serve(packing=packing))
    introduce(Channel(sock, UNPROVED_SERVER, 30.0), token, packing.digest(), 0, 0)
    header = struct.pack("=IBBHqqqIQ", 0x6B73706B, 1, 11, 3, 1, 0, 1, 0, size)
    sock.sendall(header + bytes(4) + bytes(size))
    assert f"{size} bytes for PUSH_PACKED, expected 16" in handler.lost_replica()[2]
    assert handler.calls == [("hello", 0, 0)]
