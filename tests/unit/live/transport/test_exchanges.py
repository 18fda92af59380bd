"""Requests and replies between a real client and a real server."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest

from kspark.errors import (
    AggregationError,
    ConnectionLostError,
    Failure,
    IncompatibleDeltaError,
    KSparkError,
    NonFiniteError,
    ProtocolError,
)
from kspark.live.transport import AggregatorClient, Reply, channel
from kspark.live.wire import Instructions, Start, Welcome
from kspark.weights import Weight, WeightSpec, Whole

PREFIX = 48
INSTRUCTIONS = len('[{"stop": false}, []]')


@pytest.fixture
def server(serve):
    return serve()


@pytest.fixture
def client(server, client_of):
    return client_of(server, shard=4, attempt=2)


@pytest.fixture
def out():
    return np.full(6, 9, "float32")


def test_connect_returns_the_welcome(client, handler):
    assert client.welcome == Welcome(4, True, 0, Start(3))
    assert handler.calls == [("hello", 4, 2)]


def test_pull_fetches_the_weights(client, out):
    assert client.pull(out) == Reply(version=2, instructions=Instructions(), filled=6)
    np.testing.assert_array_equal(out, [0, 1, 2, 3, 4, 5])


def test_push_applies_a_delta_and_fetches_what_comes_of_it(client, handler, out):
    delta = np.full(6, 0.5, "float32")
    reply = client.push(delta, sequence=3, base_version=1, num_examples=64, out=out)
    assert reply == Reply(version=2, instructions=Instructions(learning_rate=0.5), filled=6)
    assert handler.calls[1] == ("push", 4, 2, 3, 1, 64)
    np.testing.assert_array_equal(out, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    np.testing.assert_array_equal(handler.weights, out)


def test_a_delta_may_be_received_over(client):
    delta = np.ones(6, "float32")
    client.push(delta, sequence=1, base_version=0, num_examples=1, out=delta)
    np.testing.assert_array_equal(delta, [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("given", [None, [1, 2, 3, 4], [1, 2, 3, 4, 5, 6]])
def test_reduce_takes_the_trainable_part_everything_or_nothing(client, handler, out, given):
    handler.answer = 0
    vector = None if given is None else np.array(given, "float32")
    client.reduce(vector, sequence=2**40, num_examples=8, out=out)
    assert handler.calls[1] == ("reduce", 4, 2, 2**40, 8, given)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (0, [9, 9, 9, 9, 9, 9]),
        (4, [-1, -1, -1, -1, 9, 9]),
        (6, [-1, -1, -1, -1, -1, -1]),
        (np.array([8, 8, 8, 8], "float32"), [8, 8, 8, 8, 9, 9]),
    ],
)
def test_reduce_answers_with_a_part_of_out_or_a_shared_vector(
    client, handler, out, answer, expected
):
    handler.answer = answer
    reply = client.reduce(None, sequence=0, num_examples=0, out=out)
    filled = answer if isinstance(answer, int) else answer.size
    assert reply == Reply(version=7, instructions=Instructions(), filled=filled)
    np.testing.assert_array_equal(out, expected)


def test_report_carries_anything(client, handler):
    meta = {"kind": "metrics", "loss": 0.25, "nested": [1, {"a": None}]}
    arrays = [np.arange(3), np.float32(2), np.zeros((0, 2)), np.array([True])]
    answer, doubled = client.report(meta, arrays)
    assert answer == {"got": meta}
    assert handler.calls[1] == ("report", 4, 2, meta)
    for array, double in zip(arrays, doubled, strict=True):
        np.testing.assert_array_equal(double, 2 * array)


def test_report_carries_more_arrays_than_a_system_call_takes_buffers(client):
    arrays = [np.full(3, i, "int16") for i in range(1500)]
    _, doubled = client.report({}, arrays)
    assert [int(a[0]) for a in doubled] == [int((2 * a)[0]) for a in arrays]


def test_reported_arrays_may_be_kept(client, handler):
    client.report({}, [np.ones(2)])
    kept = handler.reported[0]
    client.report({}, [np.zeros(2)])
    np.testing.assert_array_equal(kept, [1, 1])


def test_bytes_are_counted(client, out):
    sent, received = client.bytes_sent, client.bytes_received
    client.pull(out)
    assert client.bytes_sent - sent == PREFIX
    assert client.bytes_received - received == PREFIX + INSTRUCTIONS + 24
    client.push(out, sequence=1, base_version=0, num_examples=1, out=out)
    assert client.bytes_sent - sent == 2 * PREFIX + 24


class Clock:
    """A second passes whenever somebody looks."""

    now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


def test_waiting_is_counted(client, out, monkeypatch):
    monkeypatch.setattr("kspark.live.transport.client.time", Clock())
    client.pull(out)
    client.report({})
    assert client.seconds_waiting == 2.0


def test_replicas_do_not_wait_for_each_other(server, client_of, handler, out):
    slow, quick = client_of(server, 0), client_of(server, 1)
    handler.hold = threading.Event()
    handler.entered.clear()
    thread = threading.Thread(target=slow.pull, args=(np.empty(6, "float32"),))
    thread.start()
    assert handler.entered.wait(30)
    hold, handler.hold = handler.hold, None
    assert quick.pull(out).filled == 6
    hold.set()
    thread.join()


def test_many_replicas_at_once(server, client_of, handler):
    def work(client):
        for _ in range(20):
            assert client.pull(np.empty(6, "float32")).filled == 6

    clients = [client_of(server, shard) for shard in range(20)]
    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handler.calls) == 20 + 20 * 20


def test_a_large_vector_arrives(serve, handler, client_of):
    large = WeightSpec((Weight("w", (1_000_003,), "float64", "trainable"),))
    handler.weights = np.arange(large.size, dtype="float64")
    client = client_of(serve(large), spec=large)
    out = np.empty(large.size)
    client.push(np.ones(large.size), sequence=1, base_version=0, num_examples=1, out=out)
    np.testing.assert_array_equal(out, np.arange(1, large.size + 1))


# -- how a conversation ends -------------------------------------------------------------------


def test_a_replica_that_leaves_is_lost_once(client, handler):
    client.close()
    client.close()
    assert handler.lost_replica() == (4, 2, "The replica closed the connection.")
    assert handler.ended.empty()


@pytest.mark.parametrize("error", [AggregationError("too stale"), KSparkError("no")])
def test_a_refusal_reaches_the_replica_and_ends_the_connection(client, handler, out, error):
    handler.error = error
    with pytest.raises(type(error), match=f"refused: {error}") as caught:
        client.pull(out)
    assert type(caught.value) is type(error)
    assert handler.lost_replica() == (4, 2, str(error))
    with pytest.raises(ConnectionLostError):
        client.pull(out)


def test_a_refused_hello_is_not_lost(serve, client_of, handler):
    handler.error = AggregationError("superseded")
    server = serve()
    with pytest.raises(AggregationError, match="superseded"):
        client_of(server)
    server.close()
    assert handler.ended.empty()


def test_an_error_that_needs_more_than_a_text_arrives_as_its_base(client, handler, out):
    handler.error = NonFiniteError(Failure(1, "host", 0, "k", "loss is NaN", ""))
    with pytest.raises(KSparkError, match="loss is NaN") as caught:
        client.pull(out)
    assert type(caught.value) is KSparkError


def test_a_long_reason_is_cut(client, handler, out):
    handler.error = AggregationError("x" * 100_000)
    with pytest.raises(AggregationError, match="x{4000}$"):
        client.pull(out)


def test_a_mistake_in_the_handler_is_logged_and_told(client, handler, out, caplog):
    handler.error = ZeroDivisionError("oops")
    with pytest.raises(KSparkError, match="The aggregator failed: ZeroDivisionError"):
        client.pull(out)
    assert handler.lost_replica()[2].startswith("The aggregator failed")
    assert "oops" in caplog.text


def test_an_answer_that_may_not_travel_is_a_mistake_in_the_handler(client, handler, out):
    handler.answer = np.zeros(5, "float32")
    with pytest.raises(KSparkError, match="must have 0 or 16 or 24 bytes"):
        client.reduce(None, sequence=0, num_examples=0, out=out)


def test_two_connections_of_one_shard_are_told_apart(server, client_of, handler, out):
    first, second = client_of(server, 1, 0), client_of(server, 1, 1)
    first.close()
    assert handler.lost_replica()[:2] == (1, 0)
    assert second.pull(out).filled == 6


# -- misuse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [np.zeros(6), np.zeros((2, 3), "float32"), np.zeros(12, "float32")[::2]]
)
def test_out_must_be_a_vector_of_the_weights(client, bad):
    with pytest.raises(ValueError, match="`out` must be a contiguous vector of float32"):
        client.pull(bad)


def test_out_must_be_large_enough(client):
    with pytest.raises(ProtocolError, match="6 elements, but `out` has 4"):
        client.pull(np.zeros(4, "float32"))


def test_a_delta_of_another_model_is_not_sent(client, handler, out):
    with pytest.raises(IncompatibleDeltaError, match="delta"):
        client.push(np.zeros(4, "float32"), sequence=1, base_version=0, num_examples=1, out=out)
    with pytest.raises(ValueError, match="float32"):
        client.reduce(np.zeros(6), sequence=1, num_examples=1, out=out)
    assert client.pull(out).filled == 6
    assert [call[0] for call in handler.calls] == ["hello", "pull"]


def test_connect_comes_first(server, token, spec, out):
    client = AggregatorClient(*server.address, token, Whole(spec), 0, 0, 1.0)
    assert (client.bytes_sent, client.bytes_received) == (0, 0)
    with pytest.raises(ConnectionLostError, match="connect"):
        client.pull(out)
    client.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
@pytest.mark.parametrize(("timeout", "seconds"), [(1.0, 40), (600.0, 600), (1e12, 2147483.647)])
def test_a_driver_may_leave_bytes_unread_for_the_timeout(
    server, client_of, monkeypatch, timeout, seconds
):
    """Linux would end the connection, though the driver's host answers."""
    opened, create = [], socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda *args: opened.append(create(*args)) or opened[-1]
    )
    set_timeout = channel.Channel.set_timeout  # It has a limit of its own.
    monkeypatch.setattr(channel.Channel, "set_timeout", lambda c, t: set_timeout(c, min(t, 30.0)))
    client_of(server, timeout=timeout)
    unread = opened[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert unread == 1000 * seconds


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_messages_of_any_size_go_through_in_calls_of_limited_size(
    client, handler, out, monkeypatch, most
):
    """TLS and some systems refuse more than 2 GiB in one call."""
    monkeypatch.setattr(channel, "_MOST", most)
    delta, calls = np.full(6, 0.5, "float32"), []
    original = channel._beginning

    def beginning(buffers):
        calls.append(sum(map(len, first := original(buffers))))
        return first

    monkeypatch.setattr(channel, "_beginning", beginning)
    reply = client.push(delta, sequence=3, base_version=1, num_examples=64, out=out)
    assert reply.filled == 6
    assert max(calls) <= most
    np.testing.assert_array_equal(out, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    _, (double,) = client.report({"text": "word"}, [np.arange(50)])
    np.testing.assert_array_equal(double, 2 * np.arange(50))
