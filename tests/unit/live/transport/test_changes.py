"""Only what changed travels between a real client and a real server, and back."""

from __future__ import annotations

import numpy as np
import pytest

from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.compression import Compressor, Int8, Packing
from kspark.errors import ProtocolError
from kspark.live.coordinator import Coordinator, ShardPlan
from kspark.live.transport import client as client_module
from kspark.live.transport.channel import Channel
from kspark.live.transport.handshake import introduce
from kspark.live.transport.kept import Kept
from kspark.live.wire import UNPROVED_SERVER, Kind, Message, encode, reply_limits, request_limits
from kspark.weights import (
    STATE,
    TRAINABLE,
    Changes,
    Layout,
    Weight,
    WeightSpec,
    Whole,
    layout,
    reference,
)

ROWS, WIDTH, FROZEN = 200, 8, 500
SPEC = WeightSpec(
    (
        Weight("base", (FROZEN,), "float32", STATE),
        Weight("embeddings", (ROWS, WIDTH), "float32", TRAINABLE),
        Weight("kernel", (3, WIDTH), "float32", TRAINABLE),
        Weight("mean", (3,), "float32", STATE),
    )
)
TABLE, CUT = ROWS * WIDTH, ROWS * WIDTH + 3 * WIDTH
MEAN = slice(CUT + FROZEN, SPEC.size)
FRAME = 48
DENSE = 4 * (3 * WIDTH)
BITS = 32  # 202 blocks
START = np.arange(SPEC.size, dtype="f4")


@pytest.fixture
def patched(monkeypatch):
    """`patched(True)`: tables are large from four rows on; `patched(False)`: none is."""

    def patch(small):
        monkeypatch.setattr(layout, "LEAST_ROWS", 4 if small else 10**9)
        monkeypatch.setattr(layout, "LEAST_BYTES", 1 if small else 10**9)

    patch(True)
    return patch


def delta_of(*rows, value=1.0):
    """A delta of some rows, the kernel, and the statistics."""
    delta = np.zeros(SPEC.size, "f4")
    delta[:TABLE].reshape(ROWS, WIDTH)[list(rows)] = value
    delta[TABLE:CUT] = value / 3
    delta[MEAN] = value / 7
    return delta


class Road:
    """An aggregator behind a coordinator behind a server, and clients of it."""

    def __init__(self, serve, client_of, mode, rule="average", shards=1, gradients=False):
        rule = optimizers.get(rule)
        self.aggregator = Aggregator(SPEC, START.copy(), rule, mode)
        self.packing = Changes.of(SPEC, gradients) or Whole(SPEC, gradients)
        plans = {shard: ShardPlan(8, 4) for shard in range(shards)}
        self.coordinator = Coordinator(
            self.aggregator, plans, self.packing, merge_gradients=gradients
        )
        self.server = serve(SPEC, handler=self.coordinator, packing=self.packing)
        self.client_of, self.attempts, self.sequence = client_of, 0, 0

    def connect(self, shard=0):
        self.attempts += 1
        return self.client_of(self.server, shard, self.attempts, packing=self.packing)

    def push(self, client, delta, out):
        """Weights that came back, and the bytes both ways, without the frames."""
        sent, received = client.bytes_sent, client.bytes_received
        payload = self.packing.packer().pack(delta)
        self.sequence += 1
        reply = client.push(
            payload, sequence=self.sequence, base_version=0, num_examples=2, out=out
        )
        assert reply.filled == SPEC.size
        # The driver's word on stopping is the rest of the answer.
        word = len('[{"stop": false}, []]')
        received = client.bytes_received - received - FRAME - word
        return out.copy(), client.bytes_sent - sent - FRAME, received


@pytest.fixture
def road(serve, client_of, patched):
    def make(mode="asynchronous", **more):
        return Road(serve, client_of, mode, **more)

    return make


def test_a_push_and_its_answer_hold_what_changed(road):
    """Bytes by hand: bits, the kernel, the statistics, and so many rows."""
    made = road()
    client, out = made.connect(), np.empty(SPEC.size, "f4")
    client.pull(out)
    assert out.tobytes() == START.tobytes()
    small = BITS + DENSE + 4 * 3
    _, sent, received = made.push(client, delta_of(3, 7), out)
    assert (sent, received) == (small + 2 * 4 * WIDTH,) * 2
    _, sent, received = made.push(client, delta_of(7, 11, 12), out)
    assert (sent, received) == (small + 3 * 4 * WIDTH,) * 2
    expected = START + delta_of(3, 7) + delta_of(7, 11, 12)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert out.tobytes() == made.aggregator.weights.tobytes()


SCRIPT = [(0, [3, 7]), (1, [8]), (1, []), (0, [3, 199]), (0, [0]), (1, range(150)), (0, [1])]


@pytest.mark.parametrize(
    "rule",
    ["average", "adam", optimizers.get({"class_name": "sgd", "config": {"momentum": 0.9}})],
    ids=["average", "adam", "momentum"],
)
def test_answers_are_those_of_the_plain_road(road, patched, rule):
    """Two replicas in turns, and one that comes back; with rules that move untouched rows too."""
    answers, totals = [], []
    for small in (True, False):
        patched(small)
        made = road(rule=rule if isinstance(rule, str) else rule.clone(), shards=1)
        assert isinstance(made.packing, Changes if small else Whole)
        clients = [made.connect()]
        found, total, out = [], 0, np.empty(SPEC.size, "f4")
        clients[0].pull(out)
        for turn, (who, rows) in enumerate(SCRIPT):
            if who == 1 and turn == 1:  # the same shard comes back as another attempt
                clients[0] = made.connect()
                clients[0].pull(out)
            weights, *counts = made.push(clients[0], delta_of(*rows, value=turn + 0.5), out)
            found.append(weights.tobytes())
            total += sum(counts)
        answers.append(found)
        totals.append(total)
    assert answers[0] == answers[1]
    assert totals[0] < 0.75 * totals[1]


def test_callers_may_do_with_out_what_they_like(road):
    made = road()
    client, out = made.connect(), np.empty(SPEC.size, "f4")
    client.pull(out)
    for row in (3, 7):
        out[:] = -1
        made.push(client, delta_of(row), out)
        assert out.tobytes() == made.aggregator.weights.tobytes()
    other = np.empty(SPEC.size, "f4")
    client.pull(other)
    assert other.tobytes() == made.aggregator.weights.tobytes()


def test_weights_that_the_driver_sets_arrive(road):
    """A callback sets one row that nobody touches, then all weights."""
    made = road()
    client, out = made.connect(), np.empty(SPEC.size, "f4")
    client.pull(out)
    weights = made.aggregator.weights.copy()
    weights[5 * WIDTH] = 99
    made.aggregator.replace(weights)
    _, _, received = made.push(client, delta_of(3), out)
    assert out.tobytes() == made.aggregator.weights.tobytes()
    assert received == BITS + DENSE + 4 * 3 + 2 * 4 * WIDTH
    made.aggregator.replace(weights + 1)
    for expected in (SPEC.nbytes, BITS + DENSE + 4 * 3 + 4 * WIDTH):
        _, _, received = made.push(client, delta_of(3), out)
        assert out.tobytes() == made.aggregator.weights.tobytes()
        assert received == expected


def test_a_replica_that_keeps_its_own_weights_gets_the_gap(road, patched):
    """Own weights are others in every row, and so is the first gap: it is no weights.

    Only the frozen layer is left out of these. The gaps that follow change where they do.
    """
    answers = []
    for small in (True, False):
        patched(small)
        made = road(rule="elastic_average")
        client, out = made.connect(), np.empty(SPEC.size, "f4")
        client.pull(out)
        own = START + delta_of(3)
        own[CUT:] -= START[CUT:]
        most = SPEC.nbytes - (4 * FROZEN - BITS if small else 0)
        for expected in (most, BITS + DENSE + 4 * 3 + 4 * WIDTH if small else most):
            weights, sent, received = made.push(client, own, out)
            answers.append(weights.tobytes())
            assert (sent, received) == (most, expected)
    assert answers[:2] == answers[2:]


def test_what_was_not_kept_cannot_change():
    out = np.zeros(SPEC.size, "f4")
    for made in (None, Layout(4, np.dtype("f4"), ())):
        with pytest.raises(ProtocolError, match="changed blocks before it had sent the weights"):
            Kept(made).take(Message(Kind.VECTOR_CHANGED, (1,), {}, (np.zeros(8, "u1"),)), out)


def test_a_malformed_change_of_the_weights_is_refused(road, monkeypatch):
    made = road()
    client, out = made.connect(), np.empty(SPEC.size, "f4")
    client.pull(out)
    monkeypatch.setattr(Layout, "encode", lambda self, *_: np.full(self.sizes[0], 255, "u1"))
    with pytest.raises(ProtocolError, match="bits for more than 202 blocks"):
        client.pull(out)


def hostile(change):
    """A push whose payload is changed."""
    payload = Changes.of(SPEC).pack(delta_of(3, 7))
    limits = request_limits(Changes.of(SPEC))
    return b"".join(encode(Kind.PUSH_PACKED, (1, 0, 2), None, (change(payload),), limits=limits))


def with_bit(payload):
    payload[31] = 128
    return payload


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda payload: payload[:-4], "Got a payload of"),
        (lambda payload: np.append(payload, payload[:4]), "Got a payload of"),
        (with_bit, "bits for more than 202 blocks"),
    ],
)
def test_a_malformed_push_closes_its_connection_and_changes_nothing(
    road, stranger, token, change, reason, caplog
):
    made = road(shards=2)
    bystander = made.connect(1)
    sock = stranger(made.server)
    introduce(Channel(sock, UNPROVED_SERVER, 30.0), token, made.packing.digest(), 0, 5)
    sock.sendall(hostile(change))
    while sock.recv(1000):
        pass
    assert reason in caplog.text
    out = np.empty(SPEC.size, "f4")
    bystander.pull(out)
    assert out.tobytes() == START.tobytes()
    assert made.aggregator.version == 0


def test_payloads_are_smaller_than_their_vectors(patched):
    """The decoder refuses all others before there is room for them."""
    part = range(BITS, 4 * CUT)
    whole, layout_ = range(BITS, SPEC.nbytes), Layout.of(SPEC)
    requests = request_limits(Changes.of(SPEC), layout_)
    for kind in (Kind.PUSH_PACKED, Kind.REDUCE_PACKED, Kind.REDUCE_CHANGED):
        assert requests[kind].sizes == whole
    assert Kind.VECTOR_PACKED not in reply_limits(Changes.of(SPEC), layout_)
    merging = Changes.of(SPEC, gradients=True)
    requests = request_limits(merging, layout_)
    replies = reply_limits(merging, layout_)
    assert Kind.PUSH_PACKED not in requests
    assert requests[Kind.REDUCE_PACKED].sizes == replies[Kind.VECTOR_PACKED].sizes == part
    assert (replies[Kind.VECTOR_CHANGED].sizes, replies[Kind.VECTOR_KEPT].sizes) == (
        whole, (SPEC.nbytes,),
    )  # fmt: skip
    kinds = {Kind.REDUCE_CHANGED, Kind.VECTOR_CHANGED, Kind.VECTOR_KEPT, Kind.PUSH_PACKED}
    assert not kinds & {*request_limits(Whole(SPEC)), *reply_limits(Whole(SPEC))}


def test_gradients_come_and_go_without_the_rows_that_nobody_looked_up(road, pool):
    """Two replicas meet: each brings a row, both leave with two. Then they settle."""
    made = road("synchronous", shards=2, gradients=True)
    clients = [made.connect(shard) for shard in (0, 1)]
    outs = [np.empty(SPEC.size, "f4") for _ in clients]
    for client, out in zip(clients, outs, strict=True):
        client.pull(out)
    gradients = [delta_of(row)[:CUT] for row in (3, 7)]
    before = [(c.bytes_sent, c.bytes_received) for c in clients]
    word = len('[{"stop": false}, []]')

    def meet(shard, vector, step, **more):
        more = {"sequence": step, "num_examples": 2, "out": outs[shard], **more}
        return clients[shard].reduce(vector, **more)

    def all_meet(vectors, step, **more):
        calls = [pool.submit(meet, s, vector, step, **more) for s, vector in enumerate(vectors)]
        return [call.result(30).filled for call in calls]

    assert all_meet([made.packing.pack(g) for g in gradients], 0) == [CUT, CUT]
    for out in outs:
        assert out[:CUT].tobytes() == ((gradients[0] + gradients[1]) / 2).tobytes()
    for client, (sent, received) in zip(clients, before, strict=True):
        row, bits = 4 * WIDTH, 32
        assert client.bytes_sent - sent == FRAME + bits + DENSE + row
        assert client.bytes_received - received == FRAME + word + bits + DENSE + 2 * row
    # Three more meetings with gradients of which nothing can be left out, then the weights.
    full = np.ones(CUT, "f4")
    for step in (1, 2, 3):
        assert made.packing.pack(full) is full
        assert all_meet([full, full], step) == [CUT, CUT]
        assert all((out[:CUT] == 1).all() for out in outs)
    sent, received = clients[0].bytes_sent, clients[0].bytes_received
    weights = START + delta_of(3, 7)
    assert all_meet([weights, weights], 4, weights=True) == [SPEC.size] * 2
    assert all(out.tobytes() == weights.tobytes() for out in outs)
    assert made.aggregator.weights.tobytes() == weights.tobytes()
    small = BITS + DENSE + 4 * 3 + 2 * 4 * WIDTH
    assert clients[0].bytes_sent - sent == FRAME + small
    assert clients[0].bytes_received - received == FRAME + word + small


def test_gradients_that_are_as_long_as_the_weights_are_not_taken_for_them(
    serve, client_of, patched
):
    """Without state both are of one size; a gradient of which nothing is left out is a vector."""
    spec = WeightSpec(SPEC.weights[1:3])
    start = np.arange(spec.size, dtype="f4")
    packing = Changes.of(spec, gradients=True)
    aggregator = Aggregator(spec, start.copy(), optimizers.get("average"), "synchronous")
    plans = {0: ShardPlan(8, 1)}
    coordinator = Coordinator(aggregator, plans, packing, merge_gradients=True)
    server = serve(spec, handler=coordinator, packing=packing)
    client = client_of(server, 0, 1, packing=packing)
    out = np.empty(spec.size, "f4")
    client.pull(out)
    more = {"num_examples": 2, "out": out}
    client.reduce(np.ones(spec.size, "f4"), sequence=0, **more)
    assert (out == 1).all()
    sent, received = client.bytes_sent, client.bytes_received
    start[3] = -1
    client.reduce(start, sequence=1, weights=True, **more)
    assert out.tobytes() == aggregator.weights.tobytes() == start.tobytes()
    assert client.bytes_sent - sent < 0.1 * spec.nbytes > client.bytes_received - received


def test_changes_of_weights_that_were_not_sent_are_refused(road, monkeypatch):
    """First nothing was sent; later all was, and not to be kept."""
    made = road("synchronous", gradients=True)
    out = np.empty(SPEC.size, "f4")
    more = {"sequence": 4, "num_examples": 2, "out": out, "weights": True}
    payload = Layout.of(SPEC).encode(START, np.zeros(202, bool))
    monkeypatch.setattr(Kept, "less", lambda self, weights: payload)
    monkeypatch.setattr(reference, "MAX_WHOLE", 1)
    with pytest.raises(ProtocolError, match="changed blocks before it had received the weights"):
        made.connect().reduce(START, **more)
    client = made.connect()
    client.pull(out)
    made.aggregator.replace(START + 1)
    client.pull(out)
    with pytest.raises(ProtocolError, match="changed blocks before it had received the weights"):
        client.reduce(START, **more)


def test_weights_that_are_not_to_be_kept_are_forgotten(road, monkeypatch):
    monkeypatch.setattr(reference, "MAX_WHOLE", 1)
    made = road("synchronous", gradients=True)
    client, out = made.connect(), np.empty(SPEC.size, "f4")
    client.pull(out)
    assert client._kept.less(START).nbytes < 0.1 * SPEC.nbytes
    made.aggregator.replace(START + 1)
    client.pull(out)
    assert client._kept.less(out) is out


def test_a_model_without_blocks_keeps_nothing(serve, client_of, handler, monkeypatch):
    """Frames are what they were: kind 8, and no copy of the weights."""
    monkeypatch.setattr(client_module.Kept, "take", None)
    server = serve()
    assert server._terms.reference is None
    client = client_of(server)
    out = np.empty(6, "f4")
    for _ in range(2):
        assert client.pull(out).filled == 6


def test_under_compression_the_weights_go_back_without_what_did_not_change(
    serve, client_of, patched
):
    """And a delta leaves its frozen layer at home; rows are the codec's."""
    packing = Packing(Int8(), SPEC)
    aggregator = Aggregator(SPEC, START.copy(), optimizers.get("average"), "asynchronous")
    coordinator = Coordinator(aggregator, {0: ShardPlan(8, 4)}, packing)
    server = serve(SPEC, handler=coordinator, packing=packing)
    client = client_of(server, 0, 1, packing=packing)
    out = np.empty(SPEC.size, "f4")
    client.pull(out)
    payload = Compressor(packing).pack(delta_of(3))
    assert payload.size == packing.codec_bytes + 8 + 4 * 3
    received = client.bytes_received
    client.push(payload, sequence=1, base_version=0, num_examples=2, out=out)
    assert out.tobytes() == aggregator.weights.tobytes()
    assert client.bytes_received - received < 0.2 * SPEC.nbytes
