"""Measure single parts: codecs, merging, the lock, messages and bytes on a socket."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.exchange.replica import kspark_client, median_ms
from benchmarks.exchange.servers import TOKEN, aggregator, spec_of
from benchmarks.exchange.sockets import TIMEOUT
from benchmarks.scaling.costs import PLAIN, CodecCosts
from kspark import compression
from kspark.aggregator import Aggregator
from kspark.compression import Compressor, Packing
from kspark.live.transport import AggregatorServer
from kspark.optimizers import get as get_rule
from kspark.weights import Whole, mean_in_order, weighted_mean

CODECS: dict[str, Any] = {
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "top_k": compression.TopK(0.01),
}
MEGABYTES = 8.0
REPEATS = 5
NUM_VECTORS = 4
SMALL, LARGE = 0.004, 16.0
"""Megabytes of a message."""


def seconds_of(action: Callable[[], object], repeats: int = REPEATS) -> float:
    """The shortest time of an action, after a first time that is not measured."""
    action()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def vectors(count: int) -> list[np.ndarray]:
    """Vectors with values of all magnitudes, as deltas have."""
    rng = np.random.default_rng(0)
    size = spec_of(MEGABYTES).size
    return [rng.normal(0, 1e-3, size).astype("float32") for _ in range(count)]


def codec_costs() -> dict[str, CodecCosts]:
    """Measure every compression."""
    spec, (vector,) = spec_of(MEGABYTES), vectors(1)
    costs = {PLAIN: CodecCosts(1.0, 0.0, 0.0)}
    for name, codec in CODECS.items():
        packing = Packing(compression.get(codec), spec)
        compressor, out = Compressor(packing), np.empty_like(vector)
        payload = compressor.pack(vector)
        encode = seconds_of(lambda c=compressor: c.pack(vector))
        decode = seconds_of(lambda p=packing, b=payload, o=out: p.unpack(b, o))
        costs[name] = CodecCosts(
            packing.nbytes / spec.nbytes, encode / spec.nbytes, decode / spec.nbytes
        )
    return costs


def merging_costs() -> dict[str, float]:
    """Seconds per byte of one more delta: in the mean of a round, of a batch, under the lock."""
    spec, many = spec_of(MEGABYTES), vectors(NUM_VECTORS)
    pairs = [(vector, 1.0) for vector in many]
    rule = Aggregator(spec, np.zeros(spec.size, "float32"), get_rule("average"), "asynchronous")
    out = np.empty(spec.size, "float32")

    def push() -> None:
        rule.push(many[0], 0.5, 0)
        rule.pull(out)

    each = NUM_VECTORS * spec.nbytes
    return {
        "merge": seconds_of(lambda: weighted_mean(pairs)) / each,
        "mean": seconds_of(lambda: mean_in_order(pairs)) / each,
        "lock": seconds_of(push) / spec.nbytes,
    }


def message_costs(lock: float) -> dict[str, float]:
    """Seconds of a message's round trip, of the driver's part in it, and of a byte."""
    small, own = exchange_seconds(SMALL, 2000)
    large, _ = exchange_seconds(LARGE, 20)
    moved = 2 * (LARGE - SMALL) * 1e6
    wire = (large - small - lock * LARGE * 1e6) / moved
    return {"message": small, "message_driver": own, "wire": max(wire, 0.0)}


def exchange_seconds(megabytes: float, calls: int) -> tuple[float, float]:
    """The median round trip of a push, and the driver's processor time in it."""
    spec = spec_of(megabytes)
    handler = aggregator(spec, "asynchronous", 1)
    with AggregatorServer(handler, Whole(spec), TOKEN, host="127.0.0.1", timeout=TIMEOUT) as server:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        arguments = (there, server.address[1], megabytes, calls)
        process = context.Process(target=pushing, args=arguments, daemon=True)
        process.start()
        there.close()  # Without this copy, `recv` raises an error if the process ends.
        here.recv()
        begin = time.process_time()
        here.send("go")
        seconds = here.recv()
        own = (time.process_time() - begin) / calls
        process.join()
    return seconds, own


def pushing(pipe: Connection, port: int, megabytes: float, calls: int) -> None:
    """In a replica's process: push vectors, and send the median seconds through the pipe."""
    push, close = kspark_client(port, spec_of(megabytes), shard=0, reduce=False)
    pipe.send("ready")
    pipe.recv()
    pipe.send(median_ms(push, 0, calls) / 1000)
    close()
