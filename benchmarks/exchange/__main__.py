"""Exchanging weights: what kspark adds to raw sockets, and those to a memory copy.

    python benchmarks/aggregator.py

The servers run here, as they do in Spark's driver process; the replicas run in
processes of their own. Each figure is the median over `--runs` runs, in which
the ways take turns, so that a busy machine is busy for all of them. Ratios are
medians of the runs' own ratios.

* *push + pull*: one round trip with a vector each way. `transport` has nothing
  behind it; `aggregator` has the asynchronous mode's, which adds the delta to
  the weights and copies them out under a lock.
* *reduce*: two replicas hand in a vector and get the mean of both, as after
  every batch of exact synchronous training.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.coordinator import Coordinator, ShardPlan
from kspark.transport import AggregatorClient, AggregatorServer
from kspark.weights import Weight, WeightSpec

TOKEN = b"benchmark"
TIMEOUT = 600.0  # every server waits while the other ways have their turn
REDUCE_MEGABYTES = 0.5
BYTES_PER_RUN = 100e6

Row = dict[str, float]  # way -> milliseconds of one exchange


class Nothing:
    """A handler that does nothing: what is left is the transport."""

    def hello(self, *request: Any) -> dict[str, Any]:
        """Welcome everybody."""
        return {}

    def push(self, *request: Any) -> tuple[int, dict[str, Any]]:
        """Answer with what `out` holds anyway."""
        return 0, {}

    def lost(self, *replica: Any) -> None:
        """Nobody is missed."""

    def close(self) -> None:
        """Nothing blocks."""


def spec_of(megabytes: float) -> WeightSpec:
    return WeightSpec((Weight("w", (int(megabytes * 1e6) // 4,), "float32", "trainable"),))


def aggregator(spec: WeightSpec, mode: str, num_shards: int) -> Coordinator:
    """What `fit` puts behind its server."""
    weights = np.zeros(spec.size, spec.dtype)
    rule = Aggregator(spec, weights, optimizers.get("average"), mode)
    shards = {shard: ShardPlan(1000, 1 << 30) for shard in range(num_shards)}
    return Coordinator(rule, shards, merge_gradients=mode == "synchronous", timeout=TIMEOUT)


# -- in the driver process ---------------------------------------------------------------------


def receive(sock: socket.socket, place: memoryview) -> bool:
    """Fill `place`; `False` at the end of the stream."""
    filled = 0
    while filled < len(place):
        count = sock.recv_into(place[filled:])
        if not count:
            return False
        filled += count
    return True


def configured(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(TIMEOUT)
    return sock


def bytes_of(array: np.ndarray) -> memoryview:
    return array.view(np.uint8).data


def raw_server(listener: socket.socket, spec: WeightSpec, num_clients: int) -> None:
    """The least that can be done: vectors in, (for two clients) their mean, a vector out."""
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
    """One server per way, all for the same weights."""

    def __init__(self, spec: WeightSpec, num_clients: int, **handlers: Any) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        arguments = (self._listener, spec, num_clients)
        self._thread = threading.Thread(target=raw_server, args=arguments, daemon=True)
        self._servers = {
            way: AggregatorServer(handler, spec, TOKEN, host="127.0.0.1", timeout=TIMEOUT)
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


# -- in a replica's process --------------------------------------------------------------------

Exchange = Callable[[int], None]  # of the exchange's number


def raw_client(port: int, spec: WeightSpec) -> tuple[Exchange, Callable[[], None]]:
    sock = configured(socket.create_connection(("127.0.0.1", port), TIMEOUT))
    delta, out = np.zeros(spec.size, spec.dtype), np.empty(spec.size, spec.dtype)

    def exchange(number: int) -> None:
        sock.sendall(bytes_of(delta))
        receive(sock, bytes_of(out))

    return exchange, sock.close


def kspark_client(
    port: int, spec: WeightSpec, shard: int, reduce: bool
) -> tuple[Exchange, Callable[[], None]]:
    client = AggregatorClient("127.0.0.1", port, TOKEN, spec, shard, 0, TIMEOUT)
    client.connect()
    delta, out = np.zeros(spec.size, spec.dtype), np.empty(spec.size, spec.dtype)

    def push(number: int) -> None:
        client.push(delta, sequence=number + 1, base_version=number, num_examples=64, out=out)

    def meet(number: int) -> None:
        client.reduce(delta, sequence=number, num_examples=64, out=out)

    return (meet if reduce else push), client.close


def copying(spec: WeightSpec) -> tuple[Exchange, Callable[[], None]]:
    delta, out = np.zeros(spec.size, spec.dtype), np.empty(spec.size, spec.dtype)

    def exchange(number: int) -> None:
        np.copyto(out, delta)
        np.copyto(delta, out)

    return exchange, lambda: None


def replica(
    pipe: Connection, ports: dict[str, int], spec: WeightSpec, shard: int, reduce: bool, runs: int
) -> None:
    """Measure every way in turns, and send the rows."""
    ways = {"copy": copying(spec), "raw": raw_client(ports["raw"], spec)}
    for way in ports.keys() - {"raw"}:
        ways[way] = kspark_client(ports[way], spec, shard, reduce)
    calls = int(min(300, max(3, BYTES_PER_RUN // spec.nbytes)))
    rows = []
    for run in range(runs + 1):
        start = run * calls
        rows.append({w: median_ms(ways[w][0], start, calls) for w in sorted(ways)})
    for _, close in ways.values():
        close()
    pipe.send(rows[1:])  # the first run warms up


def median_ms(exchange: Exchange, start: int, calls: int) -> float:
    seconds = []
    for number in range(start, start + calls):
        begin = time.perf_counter()
        exchange(number)
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)


# -- the table ---------------------------------------------------------------------------------


def measure(spec: WeightSpec, runs: int, num_replicas: int, **handlers: Any) -> list[Row]:
    """The rows of the first replica."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with Servers(spec, num_replicas, **handlers) as ports:
        for shard in range(num_replicas):
            here, there = context.Pipe()
            arguments = (there, ports, spec, shard, num_replicas > 1, runs)
            processes.append(context.Process(target=replica, args=arguments, daemon=True))
            processes[-1].start()
            pipes.append(here)
            there.close()  # so that `recv` ends if the process does
        rows = [pipe.recv() for pipe in pipes]
        for process in processes:
            process.join()
    return rows[0]


def line(name: str, rows: list[Row]) -> str:
    cells = [f"{name:>20}"]
    for way in ("copy", "raw", "transport", "aggregator"):
        if way not in rows[0]:
            cells.append(f"{'':>19}")
            continue
        ms = statistics.median(row[way] for row in rows)
        ratio = statistics.median(row[way] / row["raw"] for row in rows)
        cells.append(f"{ms:>10.3f} ({ratio:>5.2f}) ")
    return " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--megabytes", type=float, nargs="*", default=[0.5, 10.0, 100.0])
    options = parser.parse_args()
    print("milliseconds of one exchange (times raw sockets)\n")
    print(
        f"{'':>20} {'memory copy':>18}  {'raw sockets':>18}  {'transport':>18}  {'aggregator':>18}"
    )
    for megabytes in options.megabytes:
        spec = spec_of(megabytes)
        live = aggregator(spec, "asynchronous", 1)
        rows = measure(spec, options.runs, 1, transport=Nothing(), aggregator=live)
        print(line(f"push + pull {megabytes:g} MB", rows), flush=True)
    spec = spec_of(REDUCE_MEGABYTES)
    rows = measure(spec, options.runs, 2, aggregator=aggregator(spec, "synchronous", 2))
    print(line(f"reduce 2 x {REDUCE_MEGABYTES:g} MB", rows))


if __name__ == "__main__":
    main()
