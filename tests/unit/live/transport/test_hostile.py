"""Whatever a peer sends: its connection is closed, the reason logged, and nothing changed."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import struct
import zlib

import numpy as np
import pytest

from kspark.errors import ProtocolError
from kspark.live.transport.channel import Channel
from kspark.live.transport.handshake import introduce
from kspark.live.wire import UNPROVED_CLIENT, UNPROVED_SERVER, Kind, encode, request_limits
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, Whole

F4, F8 = np.dtype("float32"), np.dtype("float64")
SPEC = WeightSpec((Weight("w", (4,), "float32", TRAINABLE), Weight("m", (2,), "float32", STATE)))
REQUESTS = request_limits(Whole(SPEC))


class Evil:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def push(size=6, dtype=F4):
    sender = WeightSpec((Weight("w", (size,), dtype.name, STATE),))
    limits = request_limits(Whole(sender))
    return b"".join(encode(Kind.PUSH, (1, 0, 1), None, (np.ones(size, dtype),), limits=limits))


def ten_gigabytes():
    return struct.pack("=IBBHqqqIQI", 0x6B73706B, 1, 7, 0, 0, 0, 0, 2, 10 << 30, 0)


def damaged(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def hello(channel_limits=UNPROVED_CLIENT):
    fields = {"nonce": "", "proof": "", "spec": ""}
    return b"".join(encode(Kind.HELLO, (0, 0), fields, limits=channel_limits))


def read_to_the_end(sock):
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError:
        pass  # the server closed with bytes of ours unread
    return received


def untouched(handler, *calls):
    return handler.calls == list(calls) and handler.weights.tolist() == [0, 1, 2, 3, 4, 5]


AFTER_THE_HANDSHAKE = {
    "garbage": (os.urandom(4096), "first bytes"),
    "http": (b"POST /update HTTP/1.1\r\nHost: driver\r\nContent-Length: 9\r\n\r\n", "first bytes"),
    "pickle": (pickle.dumps(Evil("owned")).ljust(48, b"."), "first bytes"),
    "wrong shape": (push(4), "16 bytes for PUSH, expected 24"),
    "oversized": (push(7), "28 bytes for PUSH, expected 24"),
    "wrong dtype": (push(3, F8), "dtype 2 for PUSH, expected float32"),
    "10 GB": (ten_gigabytes(), "10737418240 bytes for REPORT, expected at most 67108864"),
    "damaged sequence": (damaged(push(), 8), "checksum of PUSH"),
    "damaged checksum": (damaged(push(), 45), "checksum of PUSH"),
    "two at once": (push() + push(), "72 bytes follow PUSH"),
    "another hello": (hello(), "kind 2 is not accepted"),
    "a reply": (damaged(push(), 5)[:5] + b"\x08" + push()[6:], "kind 8 is not accepted"),
}


@pytest.mark.parametrize("name", AFTER_THE_HANDSHAKE)
def test_a_bad_frame_closes_its_connection_and_changes_nothing(
    name, serve, insider, client_of, handler, caplog, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data, reason = AFTER_THE_HANDSHAKE[name]
    server = serve()
    bystander = client_of(server, shard=1)
    sock = insider(server)
    sock.sendall(data)
    read_to_the_end(sock)
    shard, attempt, told = handler.lost_replica()
    assert (shard, attempt) == (0, 0)
    assert reason in told
    assert reason in caplog.text
    assert "(shard 0, attempt 0)" in caplog.text
    assert untouched(handler, ("hello", 1, 0), ("hello", 0, 0))
    assert os.listdir(tmp_path) == []
    assert bystander.pull(np.empty(6, F4)).filled == 6


@pytest.mark.parametrize("sent", [1, 47, 48, 49, 71])
def test_a_truncated_frame_changes_nothing(sent, serve, insider, handler, caplog):
    sock = insider(serve())
    sock.sendall(push()[:sent])
    sock.shutdown(socket.SHUT_WR)
    assert "The stream ends after" in handler.lost_replica()[2]
    assert "The stream ends after" in caplog.text
    assert untouched(handler, ("hello", 0, 0))


def test_the_handler_may_log_broken_connections_itself(serve, insider, stranger, handler, caplog):
    """But those of strangers are always logged."""
    server = serve(broken_level=logging.DEBUG)
    caplog.set_level(logging.INFO, "kspark")
    sock = insider(server)
    sock.sendall(push()[:47])
    sock.shutdown(socket.SHUT_WR)
    assert "The stream ends after" in handler.lost_replica()[2]
    assert caplog.text == ""
    other = stranger(server)
    other.sendall(b"no message of kspark" * 9)
    read_to_the_end(other)
    assert "Closing the connection" in caplog.text


def test_a_client_killed_inside_a_frame_changes_nothing(serve, insider, handler):
    sock = insider(serve())
    sock.sendall(push()[:60])
    # What the system does for a killed process that has unread data: reset, not goodbye.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    assert handler.lost_replica()[:2] == (0, 0)
    assert handler.ended.empty()
    assert untouched(handler, ("hello", 0, 0))


def test_the_peer_is_told_why(serve, insider):
    sock = insider(serve())
    sock.sendall(push(4)[:48])
    assert b"16 bytes for PUSH, expected 24" in read_to_the_end(sock)


BEFORE_THE_HANDSHAKE = {
    "garbage": (os.urandom(600), "first bytes"),
    "speaking first": (push(), "kind 5 is not accepted here"),
    "wrong proof": (hello(), "does not know the token"),
    "long hello": (
        struct.pack("=IBBHqqqIQI", 0x6B73706B, 1, 2, 0, 0, 0, 0, 513, 0, 0),
        "513 bytes",
    ),
    "hello with a payload": (
        struct.pack("=IBBHqqqIQI", 0x6B73706B, 1, 2, 0, 0, 0, 0, 2, 8, 0),
        "8 bytes for HELLO, expected 0",
    ),
}


@pytest.mark.parametrize("name", BEFORE_THE_HANDSHAKE)
def test_a_stranger_is_turned_away(name, serve, stranger, client_of, handler, caplog):
    data, reason = BEFORE_THE_HANDSHAKE[name]
    server = serve()
    sock = stranger(server)
    sock.sendall(data)
    read_to_the_end(sock)
    assert reason in caplog.text
    assert untouched(handler)
    assert client_of(server).welcome.start.epoch == 3
    assert handler.ended.empty()


def test_another_token_is_refused_on_both_sides(serve, client_of, handler, caplog):
    server = serve()
    with pytest.raises(ProtocolError, match="refused: The client does not know the token"):
        client_of(server, token=b"guess")
    assert "does not know the token" in caplog.text
    assert untouched(handler)


def test_a_proof_that_is_not_ascii_is_wrong_and_no_more(serve, stranger, handler, caplog):
    fields = {"nonce": "\ud800", "proof": "\ud800é", "spec": ""}
    sock = stranger(serve())
    sock.sendall(b"".join(encode(Kind.HELLO, (0, 0), fields, limits=UNPROVED_CLIENT)))
    read_to_the_end(sock)
    assert "does not know the token" in caplog.text


def test_another_model_is_refused(serve, client_of, handler):
    other = WeightSpec((Weight("kernel", (6,), "float32", "trainable"),))
    with pytest.raises(
        ProtocolError, match="weights of the replica's model, or its compression, differ"
    ):
        client_of(serve(), spec=other)
    assert untouched(handler)


def test_a_proof_cannot_be_used_again(serve, stranger, handler, caplog, token, spec):
    server = serve()
    recorded = Recorder(stranger(server))
    introduce(Channel(recorded, UNPROVED_SERVER, 30.0), token, spec.digest(), 0, 0)
    sock = stranger(server)
    sock.sendall(recorded.sent)
    read_to_the_end(sock)
    assert "does not know the token" in caplog.text
    assert untouched(handler, ("hello", 0, 0))


def test_a_proof_is_for_one_shard_only(serve, stranger, handler, caplog, token, spec):
    sock = Recorder(stranger(serve()), change=replaced_shard)
    answer = introduce(Channel(sock, UNPROVED_SERVER, 30.0), token, spec.digest(), 0, 0)
    assert answer.kind is Kind.REFUSED
    assert untouched(handler)


class Recorder:
    """A socket that keeps, and may change, what is sent."""

    def __init__(self, sock, change=bytes):
        self._sock, self._change, self.sent = sock, change, b""

    def sendmsg(self, buffers):
        data = self._change(b"".join(buffers))
        self.sent += data
        self._sock.sendall(data)
        return len(data)

    def __getattr__(self, name):
        return getattr(self._sock, name)


def replaced_shard(data):
    """The same HELLO for shard 1, with a checksum that fits."""
    header = data[:8] + struct.pack("=q", 1) + data[16:44]
    return header + struct.pack("=I", zlib.crc32(header + data[48:])) + data[48:]


@pytest.fixture
def short_handshake(monkeypatch):
    monkeypatch.setattr("kspark.live.transport.server.HANDSHAKE_TIMEOUT", 0.1)


@pytest.mark.usefixtures("short_handshake")
def test_a_silent_stranger_is_turned_away(serve, stranger, caplog, handler):
    sock = stranger(serve())
    assert b"nonce" in read_to_the_end(sock)
    assert "silent or slow for 0.1 s" in caplog.text
    assert untouched(handler)


@pytest.mark.usefixtures("short_handshake")
def test_a_stranger_that_stops_in_the_middle_is_turned_away(serve, stranger, caplog, handler):
    sock = stranger(serve())
    sock.sendall(hello()[:20])
    read_to_the_end(sock)
    assert "silent or slow for 0.1 s" in caplog.text
    assert untouched(handler)


def test_a_stranger_that_leaves_is_nobody(serve, stranger, client_of, caplog, handler):
    server = serve()
    stranger(server).close()
    assert client_of(server).welcome
    server.close()
    assert handler.lost_replica()[:2] == (0, 0)
    assert handler.ended.empty()


def test_a_replica_that_stops_in_the_middle_is_lost(serve, insider, handler):
    sock = insider(serve(timeout=0.1))
    sock.sendall(push()[:60])
    assert "silent or slow for 0.1 s" in handler.lost_replica()[2]
    assert untouched(handler, ("hello", 0, 0))


def test_there_is_a_limit_to_strangers(serve, stranger, client_of, monkeypatch, caplog):
    monkeypatch.setattr("kspark.live.transport.server.MAX_STRANGERS", 2)
    server = serve()
    proved = client_of(server, 0), client_of(server, 1)
    first, second = stranger(server), stranger(server)
    assert first.recv(1)
    assert second.recv(1)  # both are being served
    assert read_to_the_end(stranger(server)) == b""
    assert "2 other connections have not finished the handshake" in caplog.text
    assert all(client.pull(np.empty(6, F4)).filled for client in proved)
    first.close()
    second.close()
