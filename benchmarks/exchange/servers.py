"""The driver's side of an exchange: one server per way, all for the same weights."""

from __future__ import annotations

import socket
import threading
from typing import Any

import numpy as np

from benchmarks.exchange.sockets import TIMEOUT, bytes_of, configured, receive
from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.live.coordinator import Coordinator, ShardPlan
from kspark.live.transport import AggregatorServer
from kspark.live.wire import Instructions, Start, Welcome
from kspark.weights import Weight, WeightSpec, Whole

TOKEN = b"benchmark"


class NullHandler:
    """A handler that does nothing, so that only the transport takes time."""

    def hello(self, *replica: Any) -> Welcome:
        """Accept every replica."""
        return Welcome(steps=1, leader=True, version=0, start=Start(epoch=0))

    def push(self, *request: Any) -> tuple[int, Instructions]:
        """Leave the answer's vector as it is."""
        return 0, Instructions()

    def lost(self, *replica: Any) -> None:
        """Ignore a lost replica."""

    def close(self) -> None:
        """Close nothing."""


def spec_of(megabytes: float) -> WeightSpec:
    """Weights of so many megabytes, as a single float32 vector."""
    return WeightSpec((Weight("w", (int(megabytes * 1e6) // 4,), "float32", "trainable"),))


def aggregator(spec: WeightSpec, mode: str, num_shards: int) -> Coordinator:
    """The handler that `fit` uses, with the rule `Average`."""
    rule = Aggregator(spec, np.zeros(spec.size, spec.dtype), optimizers.get("average"), mode)
    shards = {shard: ShardPlan(1000, 1 << 30) for shard in range(num_shards)}
    gradients = mode == "synchronous"
    packing = Whole(spec, gradients)
    return Coordinator(rule, shards, packing, merge_gradients=gradients, timeout=TIMEOUT)


def serve_raw(listener: socket.socket, spec: WeightSpec, num_clients: int) -> None:
    """Answer every vector with a vector, over plain sockets. Two clients get their mean."""
    socks = [configured(listener.accept()[0]) for _ in range(num_clients)]
    arrays = [np.zeros(spec.size, spec.dtype) for _ in socks]
    out = np.zeros(spec.size, spec.dtype)
    while all(receive(s, bytes_of(a)) for s, a in zip(socks, arrays, strict=True)):
        if num_clients == 2:
            np.add(*arrays, out=out)
            np.multiply(out, np.float32(0.5), out=out)
        for sock in socks:
            sock.sendall(bytes_of(out))
    for sock in socks:
        sock.close()


class Servers:
    """A context manager that runs all servers and returns their ports by the way's name.

    Args:
        spec: `WeightSpec` of the vectors.
        num_clients: Integer, number of replicas.
        **handlers: Handlers of kspark's servers, by the way's name.
    """

    def __init__(self, spec: WeightSpec, num_clients: int, **handlers: Any) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        arguments = (self._listener, spec, num_clients)
        self._thread = threading.Thread(target=serve_raw, args=arguments, daemon=True)
        self._servers = {
            way: AggregatorServer(handler, Whole(spec), TOKEN, host="127.0.0.1", timeout=TIMEOUT)
            for way, handler in handlers.items()
        }

    def __enter__(self) -> dict[str, int]:
        self._thread.start()
        for server in self._servers.values():
            server.start()
        ports = {way: server.address[1] for way, server in self._servers.items()}
        return {"raw": self._listener.getsockname()[1], **ports}

    def __exit__(self, *exc_info: object) -> None:
        for server in self._servers.values():
            server.close()
        self._listener.close()
