"""Ports, threads and waits: everything that is opened is closed, whatever hangs."""

from __future__ import annotations

import errno
import socket
import threading

import numpy as np
import pytest

from kspark.errors import (
    AggregationError,
    ClusterError,
    ConnectionLostError,
    FitEndedError,
    KSparkError,
)
from kspark.live.transport import AggregatorServer
from kspark.live.transport.listener import Listener, listen, port_candidates
from kspark.live.wire import Kind, encode, request_limits
from kspark.weights import TRAINABLE, Weight, WeightSpec, Whole

SPEC = WeightSpec((Weight("w", (6,), "float32", TRAINABLE),))
PULL = b"".join(encode(Kind.PULL, limits=request_limits(Whole(SPEC))))


@pytest.fixture
def out():
    return np.empty(6, "float32")


def test_a_server_that_is_closed_leaves_no_thread_and_no_port(
    serve, client_of, out, kspark_threads
):
    server = serve()
    client = client_of(server)
    client.pull(out)
    assert sorted(kspark_threads()) == ["kspark-accept", "kspark-connection-0"]
    host, port = server.address
    server.close()
    assert kspark_threads() == []
    listen(host, (port,)).close()
    with pytest.raises(ConnectionLostError):
        client.pull(out)


def test_close_ends_an_idle_connection(serve, client_of, handler):
    server = serve()
    client_of(server)
    server.close()
    assert handler.closed.is_set()
    assert handler.lost_replica()[:2] == (0, 0)


def test_close_ends_a_connection_inside_a_frame(serve, insider, handler):
    server = serve()
    insider(server).sendall(PULL[:30])
    server.close()
    assert handler.lost_replica()[:2] == (0, 0)


def test_close_ends_a_handshake(serve, stranger, handler):
    server = serve()
    assert stranger(server).recv(1)
    server.close()
    assert handler.ended.empty()


def test_close_ends_a_call_that_blocks(serve, insider, handler):
    server = serve()
    sock = insider(server)
    handler.entered.clear()
    handler.hold = threading.Event()
    sock.sendall(PULL)
    assert handler.entered.wait(30)
    server.close()
    assert handler.lost_replica()[2] == "the fit is over"


@pytest.mark.parametrize(
    ("error", "warns"), [(FitEndedError("the end"), False), (AggregationError("a fault"), True)]
)
def test_the_end_of_a_fit_is_no_warning(serve, insider, handler, caplog, error, warns):
    sock = insider(serve())
    handler.error = error
    sock.sendall(PULL)
    assert handler.lost_replica()[2] == str(error)
    assert bool(caplog.records) == warns


def test_close_ends_a_reply_that_nobody_reads(serve, insider, handler):
    large = WeightSpec((Weight("w", (8_000_000,), "float32", "trainable"),))
    handler.weights = np.float32(0)
    server = serve(large)
    sock = insider(server, large)
    handler.entered.clear()
    sock.sendall(PULL)
    assert handler.entered.wait(30)
    server.close()
    assert handler.lost_replica()[:2] == (0, 0)


def test_a_call_that_does_not_end_is_reported(serve, insider, handler, monkeypatch, caplog):
    monkeypatch.setattr("kspark.live.transport.server.CLOSE_TIMEOUT", 0.1)
    server = serve()
    sock = insider(server)
    handler.entered.clear()
    hold = handler.hold = threading.Event()
    sock.sendall(PULL)
    assert handler.entered.wait(30)
    handler.hold = None  # `close` does not release it
    server.close()
    assert "has not returned within 0.1 s in the threads kspark-connection-0" in caplog.text
    hold.set()
    handler.lost_replica()
    for thread in threading.enumerate():
        if thread.name == "kspark-connection-0":
            thread.join()


def test_connections_end_even_if_the_handler_cannot_close(serve, client_of, handler, monkeypatch):
    server = serve()
    client_of(server)
    monkeypatch.setattr(handler, "close", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        server.close()
    assert handler.lost_replica()[:2] == (0, 0)


def test_the_body_of_a_with_statement_may_fail(handler, spec, token, kspark_threads):
    server = AggregatorServer(handler, Whole(spec), token, host="127.0.0.1", timeout=30.0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(server, kspark_threads)
    assert kspark_threads() == []
    server.close()


def interrupted(server, kspark_threads):
    with server:
        assert kspark_threads() == ["kspark-accept"]
        raise KeyboardInterrupt


def test_a_server_is_started_once(serve, handler, spec, token):
    server = serve()
    with pytest.raises(KSparkError, match="runs already"):
        server.start()
    with pytest.raises(KSparkError, match="has not been started"):
        _ = AggregatorServer(handler, Whole(spec), token, timeout=1.0).address


def test_threads_of_replicas_that_left_are_forgotten(serve, client_of, handler):
    server = serve()
    for attempt in range(3):
        client_of(server, attempt=attempt).close()
        handler.lost_replica()
    assert client_of(server, attempt=3).welcome


# -- waits -------------------------------------------------------------------------------------


def test_a_replica_may_be_silent_between_requests(serve, client_of, out):
    client = client_of(serve(timeout=0.05))
    threading.Event().wait(0.3)
    assert client.pull(out).filled == 6


def test_a_replica_that_is_silent_for_too_long_is_lost(serve, client_of, handler, monkeypatch):
    monkeypatch.setattr("kspark.live.transport.connection.IDLE_TIMEOUT", 0.1)
    client_of(serve(timeout=0.05))
    assert "silent or slow for 0.1 s" in handler.lost_replica()[2]


def test_a_replica_that_does_not_read_is_lost(serve, insider, handler):
    large = WeightSpec((Weight("w", (8_000_000,), "float32", "trainable"),))
    handler.weights = np.float32(0)
    insider(serve(large, timeout=0.1), large).sendall(PULL)
    assert "silent or slow for 0.1 s" in handler.lost_replica()[2]


# -- ports -------------------------------------------------------------------------------------


@pytest.fixture
def taken():
    """A port that is in use, with a free one after it."""
    for _ in range(100):
        first = socket.create_server(("127.0.0.1", 0))
        port = first.getsockname()[1]
        try:
            socket.create_server(("127.0.0.1", port + 1)).close()
        except OSError:
            first.close()
            continue
        yield port
        first.close()
        return


def test_the_first_free_port_of_a_pair_is_taken(serve, taken):
    assert serve(port=(taken, taken + 1)).address == ("127.0.0.1", taken + 1)


def test_a_port_is_bound_as_asked(serve, taken):
    assert serve(port=taken + 1).address[1] == taken + 1


@pytest.mark.parametrize("last", [0, 1])
def test_no_free_port_is_a_clear_error(serve, taken, last, kspark_threads):
    second = socket.create_server(("127.0.0.1", taken + 1))
    tried = f"{taken} to {taken + 1}" if last else f"{taken}"
    with second, pytest.raises(ClusterError, match=f"Tried: {tried}. .*in use.* `port`"):
        serve(port=(taken, taken + last))
    assert kspark_threads() == []


def test_an_address_of_another_machine_is_a_clear_error(serve):
    with pytest.raises(ClusterError, match=r"on 192\.0\.2\.1.*spark\.driver\.bindAddress"):
        serve(host="192.0.2.1")


def test_all_addresses_are_the_default(serve, client_of):
    server = serve(host="")
    assert server.address[0] == "0.0.0.0"
    assert client_of(server.address[1]).welcome


def test_ipv6(serve, stranger):
    try:
        server = serve(host="::1")
    except ClusterError:
        pytest.skip("no IPv6 here")
    assert server.address[0] == "::1"
    assert b"nonce" in stranger(server).recv(4096)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (0, [0]),
        (65535, [65535]),
        ((4000, 4002), [4000, 4001, 4002]),
        ((7, 7), [7]),
    ],
)
def test_port_candidates(port, expected):
    assert list(port_candidates(port)) == expected


@pytest.mark.parametrize(
    "port",
    [-1, 65536, True, 1.0, "4000", None, (2, 1), (0, 5), (1, 2, 3), ("1", "2"), (True, 2),
     (65535, 65536), range(3), range(4000, 4002)],
)  # fmt: skip
def test_other_ports_are_refused(port):
    with pytest.raises(ValueError, match=r"`port` must be a port from 0 to 65535, or a pair"):
        port_candidates(port)


def test_arguments_are_checked(handler, token, spec):
    with pytest.raises(ValueError, match="`packing` must be"):
        AggregatorServer(handler, Whole(WeightSpec(())), token, timeout=1.0)
    with pytest.raises(ValueError, match="`token` must be"):
        AggregatorServer(handler, Whole(spec), b"", timeout=1.0)


# -- accepting ---------------------------------------------------------------------------------


class FailingOnce:
    """A listening socket whose first `accept` fails."""

    def __init__(self, sock, error):
        self._sock, self._errors = sock, [error]

    def accept(self):
        if self._errors:
            raise self._errors.pop()
        return self._sock.accept()

    def __getattr__(self, name):
        return getattr(self._sock, name)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (OSError(errno.EMFILE, "too many open files"), "too many open files"),
        (BlockingIOError(), ""),
        (ConnectionAbortedError(), ""),
    ],
)
def test_accepting_goes_on_after_an_error(error, logged, caplog):
    sock = listen("127.0.0.1", (0,))
    admitted = threading.Event()

    def admit(connection, peer):
        connection.close()
        admitted.set()

    listener = Listener(FailingOnce(sock, error), admit)
    with socket.create_connection(sock.getsockname()):
        assert admitted.wait(30)
    listener.close()
    assert caplog.text.count("Cannot accept") == bool(logged)
    assert logged in caplog.text


@pytest.mark.parametrize("error", [OSError("no"), RuntimeError("can't start new thread")])
def test_a_connection_that_cannot_be_served_is_closed(error, caplog):
    def admit(connection, peer):
        raise error

    sock = listen("127.0.0.1", (0,))
    listener = Listener(sock, admit)
    with socket.create_connection(sock.getsockname()) as client:
        assert client.recv(1) == b""
    listener.close()
    assert str(error) in caplog.text
