"""The client against servers that are absent, strange, slow or dying; and the channel alone."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest

from kspark.errors import ClusterError, ConnectionLostError, KSparkError, ProtocolError
from kspark.live.transport import channel as channel_module
from kspark.live.transport.channel import Channel
from kspark.live.transport.handshake import greet
from kspark.live.transport.refusal import describe, restore
from kspark.live.wire import (
    UNPROVED_CLIENT,
    UNPROVED_SERVER,
    Kind,
    Start,
    Welcome,
    encode,
    reply_limits,
    request_limits,
)
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, Whole

F4 = np.dtype("float32")
SPEC = WeightSpec((Weight("w", (4,), "float32", TRAINABLE), Weight("m", (2,), "float32", STATE)))
REQUESTS, REPLIES = request_limits(Whole(SPEC)), reply_limits(Whole(SPEC))
VECTOR = np.arange(6, dtype=F4)
WELCOME = Welcome(4, True, 0, Start(3)).to_json()


@pytest.fixture
def out():
    return np.empty(6, F4)


@pytest.fixture
def service():
    """Serve one connection with a function of its socket; returns the port."""
    threads, sockets = [], []

    def start(talk):
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def run():
            sock, _ = listener.accept()
            with sock:
                talk(sock)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return listener.getsockname()[1]

    yield start
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for sock in sockets:
        sock.close()


@pytest.fixture
def accomplice(service, token, spec):
    """A server that knows the token, and then does as it is told with the first request."""

    def start(talk, welcome=WELCOME):
        def serve(sock):
            channel = Channel(sock, UNPROVED_CLIENT, 30.0)
            greeting = greet(channel, token, spec.digest())
            fields = {"proof": greeting.proof, "meta": welcome}
            channel.send(Kind.WELCOME, meta=fields, limits=UNPROVED_SERVER)
            channel.decoder.limits = REQUESTS
            if channel.receive() is not None:
                talk(sock)

        return service(serve)

    return start


def vector_reply(meta=None):
    return b"".join(encode(Kind.VECTOR, (1,), meta, (VECTOR,), limits=REPLIES))


# -- connecting --------------------------------------------------------------------------------


def test_nobody_there(client_of):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ClusterError, match=rf"127\.0\.0\.1:{port}.*{socket.gethostname()}.*`port`"):
        client_of(port)


def test_another_service(client_of, service):
    port = service(lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n" * 3))
    with pytest.raises(ClusterError, match=f"{port} is not the aggregator of this fit: .*bytes"):
        client_of(port)


def test_a_service_that_hangs_up(client_of, service):
    with pytest.raises(ClusterError, match="closed the connection during the handshake"):
        client_of(service(lambda sock: None))


def test_a_silent_service(client_of, service):
    done = threading.Event()
    port = service(lambda sock: done.wait(30))
    with pytest.raises(ClusterError, match=r"silent or slow for 0\.1 s"):
        client_of(port, connect_timeout=0.1)
    done.set()


def test_an_impostor_that_accepts_every_proof(client_of, service):
    def pretend(sock):
        channel = Channel(sock, UNPROVED_CLIENT, 30.0)
        channel.send(Kind.CHALLENGE, meta={"nonce": "0"}, limits=UNPROVED_SERVER)
        proof = channel.receive().meta["proof"]  # the client's own proof, sent back
        fields = {"proof": proof, "meta": {}}
        channel.send(Kind.WELCOME, meta=fields, limits=UNPROVED_SERVER)
        assert channel.receive() is None

    with pytest.raises(ClusterError, match="server does not know the token"):
        client_of(service(pretend))


def test_a_welcome_without_a_challenge(client_of, service):
    def pretend(sock):
        fields = {"proof": "", "meta": {}}
        Channel(sock, UNPROVED_CLIENT, 30.0).send(Kind.WELCOME, meta=fields, limits=UNPROVED_SERVER)

    with pytest.raises(ClusterError, match="Got WELCOME, expected CHALLENGE"):
        client_of(service(pretend))


def changed(**fields):
    """A welcome with other fields; those that are `None` are left out."""
    document = {**WELCOME, **fields}
    return {name: value for name, value in document.items() if value is not None}


@pytest.mark.parametrize(
    ("welcome", "reason"),
    [
        ({}, "Start must have the fields"),
        (changed(steps=None), "Welcome must have the fields"),
        (changed(mood="good"), "Welcome must have the fields"),
        (changed(steps="4"), "`steps` of Welcome must be of type int"),
        (changed(epoch=3.0), "`epoch` of Start must be of type int"),
        (changed(stop=1), "`stop` of Instructions must be of type bool"),
        (changed(shared=[]), "SharedOffer must have the fields"),
        (changed(shared={"path": "p"}), "SharedOffer must have the fields"),
    ],
)
def test_a_malformed_welcome_is_refused(client_of, accomplice, welcome, reason):
    with pytest.raises(ProtocolError, match=reason):
        client_of(accomplice(lambda sock: None, welcome))


# -- answers -----------------------------------------------------------------------------------


def test_a_server_that_dies(client_of, accomplice, out):
    client = client_of(accomplice(lambda sock: None))
    with pytest.raises(ConnectionLostError, match=r"at 127\.0\.0\.1:\d+ closed the connection"):
        client.pull(out)


def test_a_server_that_dies_inside_a_reply(client_of, accomplice, out):
    client = client_of(accomplice(lambda sock: sock.sendall(vector_reply()[:60])))
    with pytest.raises(ProtocolError, match="after 12 of 24 bytes of the payload of VECTOR"):
        client.pull(out)


@pytest.mark.parametrize(
    ("instructions", "reason"),
    [
        ({"stop": "yes"}, "`stop` of Instructions must be of type bool"),
        ({"learning_rate": True}, "`learning_rate` of Instructions must be of type"),
        ({"restart": True}, "Restart must have the fields"),
        ({"restart": True, "epoch": 1, "generation": "2"}, "`generation` of Restart must be"),
        ({"restart": 1}, "`restart` of Instructions must be"),
        ({"epoch": 1}, "Instructions must have the fields"),
    ],
)
def test_malformed_instructions_are_refused(client_of, accomplice, out, instructions, reason):
    client = client_of(accomplice(lambda sock: sock.sendall(vector_reply(instructions))))
    with pytest.raises(ProtocolError, match=reason):
        client.pull(out)


def test_an_answer_to_another_question(client_of, accomplice, out):
    document = b"".join(encode(Kind.DOCUMENT, limits=REPLIES))
    client = client_of(accomplice(lambda sock: sock.sendall(document)))
    with pytest.raises(ProtocolError, match="Got DOCUMENT, expected VECTOR"):
        client.pull(out)


def test_an_answer_that_does_not_come(client_of, accomplice, out, monkeypatch):
    monkeypatch.setattr("kspark.live.transport.client.REPLY_TIMEOUT", 0.22)
    done = threading.Event()
    client = client_of(accomplice(lambda sock: done.wait(30)), timeout=0.02)
    with pytest.raises(ConnectionLostError, match=r"silent or slow for 0\.22 s"):
        client.pull(out)
    done.set()


def test_an_answer_may_take_longer_than_a_message(client_of, accomplice, out):
    def late(sock):
        threading.Event().wait(0.3)
        sock.sendall(vector_reply())

    assert client_of(accomplice(late), timeout=0.1).pull(out).filled == 6


# -- refusals ----------------------------------------------------------------------------------


def test_only_kspark_errors_are_restored():
    error = restore({"error": "SystemExit", "reason": "because"}, "host:1")
    assert type(error) is KSparkError
    assert str(error) == "The aggregator at host:1 refused: because"


@pytest.mark.parametrize("cls", [KSparkError, ClusterError, ConnectionLostError])
def test_a_refusal_keeps_its_class(cls):
    assert type(restore(describe(cls("no")), "host:1")) is cls


# -- the channel alone -------------------------------------------------------------------------


@pytest.fixture
def pair():
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    with left, right:
        yield left, right


class Dribble:
    """A socket that takes and gives three bytes at a time, and counts what it is asked."""

    def __init__(self, sock):
        self._sock, self.calls, self.largest = sock, 0, 0

    def sendmsg(self, buffers):
        self.calls += 1
        self.largest = max(self.largest, len(buffers))
        data = b"".join(buffers)[:3]
        self._sock.sendall(data)
        return len(data)

    def recv_into(self, place):
        return self._sock.recv_into(place[:3])

    def __getattr__(self, name):
        return getattr(self._sock, name)


def test_what_is_sent_in_pieces_arrives_whole(pair):
    sender = Channel(Dribble(pair[0]), REPLIES, 30.0)
    receiver = Channel(Dribble(pair[1]), REQUESTS, 30.0)
    sender.send(Kind.REPORT, meta={"a": 1}, arrays=[VECTOR, VECTOR[:3], VECTOR], limits=REQUESTS)
    message = receiver.receive()
    assert message.meta == {"a": 1}
    assert [a.tolist() for a in message.arrays] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2],
        [0, 1, 2, 3, 4, 5],
    ]
    assert sender.bytes_sent == receiver.bytes_received > 48 + 24 + 16 + 24


def test_a_system_call_gets_few_buffers(pair):
    dribble = Dribble(pair[0])
    Channel(dribble, REPLIES, 30.0).send(Kind.REPORT, arrays=[VECTOR] * 50, limits=REQUESTS)
    assert dribble.largest == 16


class WithoutGathering:
    """A socket as Windows has them."""

    def __init__(self, sock):
        self._sock = sock

    def __getattr__(self, name):
        if name == "sendmsg":
            raise AttributeError(name)
        return getattr(self._sock, name)


def test_buffers_are_sent_one_by_one_where_they_must_be(pair):
    sender = Channel(WithoutGathering(pair[0]), REPLIES, 30.0)
    sender.send(Kind.REPORT, arrays=[VECTOR, VECTOR[:3]], limits=REQUESTS)
    first, second = Channel(pair[1], REQUESTS, 30.0).receive().arrays
    assert first.tolist() == [0, 1, 2, 3, 4, 5]
    assert second.tolist() == [0, 1, 2]


class Clock:
    """Time that passes by itself: one second whenever somebody looks."""

    now = 0.0

    def monotonic(self):
        self.now += 1.0
        return self.now


def test_a_message_that_trickles_in_is_given_up(pair, monkeypatch):
    monkeypatch.setattr(channel_module, "time", Clock())
    for buffer in encode(Kind.PUSH, (1, 0, 1), None, (VECTOR,), limits=REQUESTS):
        pair[0].sendall(buffer)
    receiver = Channel(Dribble(pair[1]), REQUESTS, 10.0)
    with pytest.raises(ConnectionLostError, match="silent or slow for 10 s"):
        receiver.receive()
    assert receiver.bytes_received == 33  # three bytes a second, until it was too late


class Steady:
    """A socket that takes and gives exactly a MiB at a time, while there is as much."""

    def __init__(self, sock):
        self._sock = sock

    def recv_into(self, place):
        place, count = place[: 1 << 20], 0
        while count < len(place) and (more := self._sock.recv_into(place[count:])):
            count += more
            if len(place) == 4096:  # the head of the message, and what comes with it
                break
        return count

    def sendmsg(self, buffers):
        data = b"".join(buffers)[: 1 << 20]
        self._sock.sendall(data)
        return len(data)

    def __getattr__(self, name):
        return getattr(self._sock, name)


LONG_FRAME = b"".join(encode(Kind.REPORT, arrays=[np.ones(8 << 20, "int8")], limits=REQUESTS))


def test_a_long_message_may_come_longer_than_the_timeout(pair, monkeypatch):
    monkeypatch.setattr(channel_module, "time", Clock())
    receiver = Channel(Steady(pair[1]), REQUESTS, 3.0)
    thread = threading.Thread(target=pair[0].sendall, args=(LONG_FRAME,))
    thread.start()
    assert receiver.receive().arrays[0].sum() == 8 << 20
    thread.join()


def test_a_long_message_may_go_longer_than_the_timeout(pair, monkeypatch):
    monkeypatch.setattr(channel_module, "time", Clock())
    received = bytearray(len(LONG_FRAME))
    thread = threading.Thread(target=read_exactly, args=(pair[1], received))
    thread.start()
    sender = Channel(Steady(pair[0]), REPLIES, 3.0)
    sender.send(Kind.REPORT, arrays=[np.ones(8 << 20, "int8")], limits=REQUESTS)
    thread.join()
    assert received == LONG_FRAME


def read_exactly(sock, place):
    rest = memoryview(place)
    while rest:
        rest = rest[sock.recv_into(rest) :]


def test_a_message_that_trickles_out_is_given_up(pair, monkeypatch):
    monkeypatch.setattr(channel_module, "time", Clock())
    dribble = Dribble(pair[0])
    with pytest.raises(ConnectionLostError, match="silent or slow for 10 s"):
        Channel(dribble, REPLIES, 10.0).send(Kind.PUSH, (1, 0, 1), None, (VECTOR,), limits=REQUESTS)
    assert dribble.calls == 11  # ten seconds, one call in each, and the one that was too late


def test_a_broken_channel_sends_no_more(pair):
    channel = Channel(pair[0], REPLIES, 0.05)
    with pytest.raises(ConnectionLostError, match="silent"):
        channel.receive()
    with pytest.raises(ConnectionLostError, match="broken"):
        channel.send(Kind.PULL, limits=REQUESTS)


def test_interrupt_ends_a_wait(pair):
    channel = Channel(pair[0], REPLIES, 30.0)
    timer = threading.Timer(0.05, channel.interrupt)
    timer.start()
    assert channel.receive() is None
    timer.join()
    channel.close()
    channel.interrupt()


def test_delays_and_dead_hosts_are_taken_care_of(pair):
    Channel(pair[0], REPLIES, 30.0)
    assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
