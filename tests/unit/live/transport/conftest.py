"""A tiny aggregator behind a real server, on loopback and any free port."""

from __future__ import annotations

import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kspark.errors import AggregationError
from kspark.live.transport import AggregatorClient, AggregatorServer
from kspark.live.transport.channel import Channel
from kspark.live.transport.handshake import introduce
from kspark.live.wire import UNPROVED_SERVER, Instructions, Start, Welcome
from kspark.weights import Weight, WeightSpec, Whole

TOKEN = b"secret of this fit"
SPEC = WeightSpec(
    (
        Weight("kernel", (2, 2), "float32", "trainable"),
        Weight("mean", (2,), "float32", "state"),
        Weight("seed", (2,), "uint32", "fixed"),
    )
)
WELCOME = Welcome(4, True, 0, Start(3))
LONG = 30.0  # nothing waits that long unless a test fails


class FakeHandler:
    """Adds what is pushed. `calls` and `weights` are all the state there is."""

    def __init__(self):
        self.weights = np.arange(6, dtype="float32")
        self.calls = []
        self.ended = queue.Queue()
        self.closed = threading.Event()
        self.error = None
        self.answer = None
        self.hold = None  # an event that calls wait for, until `close`
        self.entered = threading.Event()

    def _called(self, *call):
        self.calls.append(call)
        self.entered.set()
        if self.hold is not None and not self.hold.wait(LONG):
            raise AggregationError("nobody released the handler")
        if self.error is not None:
            raise self.error

    def hello(self, shard, attempt):
        self._called("hello", shard, attempt)
        return WELCOME

    def pull(self, shard, attempt, out):
        self._called("pull", shard, attempt)
        out[:] = self.weights
        return len(self.calls), Instructions()

    def push(self, shard, attempt, sequence, base_version, num_examples, delta, out):
        self._called("push", shard, attempt, sequence, base_version, num_examples)
        self.weights += delta
        out[:] = self.weights
        return len(self.calls), Instructions(learning_rate=0.5)

    def reduce(self, shard, attempt, sequence, num_examples, vector, out):
        given = None if vector is None else vector.tolist()
        self._called("reduce", shard, attempt, sequence, num_examples, given)
        out[:] = -1
        return 7, Instructions(), self.answer

    def report(self, shard, attempt, meta, arrays):
        self._called("report", shard, attempt, meta)
        self.reported = arrays
        return {"got": meta}, [2 * array for array in arrays]

    def lost(self, shard, attempt, reason, silent=False):
        self.ended.put((shard, attempt, reason))

    def close(self):
        self.closed.set()
        self.error = AggregationError("the fit is over")
        if self.hold is not None:
            self.hold.set()

    def lost_replica(self):
        """The next `lost` call, when it comes."""
        return self.ended.get(timeout=LONG)


@pytest.fixture
def spec():
    return SPEC


@pytest.fixture
def token():
    return TOKEN


@pytest.fixture
def handler():
    return FakeHandler()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as executor:
        yield executor


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("kspark-")]


@pytest.fixture
def kspark_threads():
    return threads


@pytest.fixture
def serve(handler):
    """Start a server; at the end of the test it must leave nothing behind."""
    servers = []

    def start(spec=SPEC, handler=handler, packing=None, **options):
        options = {"host": "127.0.0.1", "timeout": LONG, **options}
        server = AggregatorServer(handler, packing or Whole(spec), TOKEN, **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()
    assert threads() == []


@pytest.fixture
def client_of():
    """Connect a client; it is closed before the server is."""
    clients = []

    def connect(server, shard=0, attempt=0, *, packing=None, token=TOKEN, timeout=LONG, **options):
        packing = packing or Whole(options.pop("spec", SPEC))
        port = server if isinstance(server, int) else server.address[1]
        client = AggregatorClient(
            "127.0.0.1", port, token, packing, shard, attempt, timeout, **options
        )
        clients.append(client)
        client.welcome = client.connect()
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def stranger():
    """Open a plain connection."""
    sockets = []

    def open_(server):
        sock = socket.create_connection(server.address, LONG)
        sockets.append(sock)
        return sock

    yield open_
    for sock in sockets:
        sock.close()


@pytest.fixture
def insider(stranger):
    """Open a plain connection, and prove that it belongs to the fit (shard 0, attempt 0)."""

    def open_(server, spec=SPEC):
        sock = stranger(server)
        introduce(Channel(sock, UNPROVED_SERVER, LONG), TOKEN, spec.digest(), 0, 0)
        return sock

    return open_
