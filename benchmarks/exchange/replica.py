"""The replica's side of an exchange, which runs in a process of its own."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.exchange.servers import TOKEN
from benchmarks.exchange.sockets import TIMEOUT, bytes_of, configured, receive
from kspark.live.transport import AggregatorClient
from kspark.weights import WeightSpec, Whole

BYTES_PER_RUN = 100e6

Exchange = Callable[[int], None]
"""Performs the exchange of a number."""

Row = dict[str, float]
"""Milliseconds of one exchange, by the way's name."""


def replica(
    pipe: Connection, ports: dict[str, int], spec: WeightSpec, shard: int, reduce: bool, runs: int
) -> None:
    """Measure all ways in turn, and send one `Row` per run through the pipe."""
    ways = {"copy": copying(spec), "raw": raw_client(ports["raw"], spec)}
    for way in ports.keys() - {"raw"}:
        ways[way] = kspark_client(ports[way], spec, shard, reduce)
    calls = int(min(300, max(3, BYTES_PER_RUN // spec.nbytes)))
    rows = []
    for run in range(runs + 1):
        start = run * calls
        # All replicas go through the ways in the same order, because they wait for each other.
        rows.append({way: median_ms(ways[way][0], start, calls) for way in sorted(ways)})
    for _, close in ways.values():
        close()
    pipe.send(rows[1:])  # The first run warms up.


def median_ms(exchange: Exchange, start: int, calls: int) -> float:
    """The median milliseconds of some exchanges with consecutive numbers."""
    seconds = []
    for number in range(start, start + calls):
        begin = time.perf_counter()
        exchange(number)
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)


def buffers(spec: WeightSpec) -> tuple[np.ndarray, np.ndarray]:
    """A vector to send, and one to receive into."""
    return np.zeros(spec.size, spec.dtype), np.empty(spec.size, spec.dtype)


def copying(spec: WeightSpec) -> tuple[Exchange, Callable[[], None]]:
    """The exchange by a copy in memory, and a function that does nothing."""
    delta, out = buffers(spec)

    def exchange(number: int) -> None:
        np.copyto(out, delta)
        np.copyto(delta, out)

    return exchange, lambda: None


def raw_client(port: int, spec: WeightSpec) -> tuple[Exchange, Callable[[], None]]:
    """The exchange over a plain socket, and the function that closes it."""
    sock = configured(socket.create_connection(("127.0.0.1", port), TIMEOUT))
    delta, out = buffers(spec)

    def exchange(number: int) -> None:
        sock.sendall(bytes_of(delta))
        receive(sock, bytes_of(out))

    return exchange, sock.close


def kspark_client(
    port: int, spec: WeightSpec, shard: int, reduce: bool
) -> tuple[Exchange, Callable[[], None]]:
    """The exchange through kspark's client, and the function that closes it."""
    client = AggregatorClient("127.0.0.1", port, TOKEN, Whole(spec), shard, 0, TIMEOUT)
    client.connect()
    delta, out = buffers(spec)

    def push(number: int) -> None:
        client.push(delta, sequence=number + 1, base_version=number, num_examples=64, out=out)

    def meet(number: int) -> None:
        client.reduce(delta, sequence=number, num_examples=64, out=out)

    return (meet if reduce else push), client.close
