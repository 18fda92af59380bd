"""Run the benchmark, print a line per minute, and the verdict."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks import load
from benchmarks.common.options import new_parser
from benchmarks.load.replicas import TIMEOUT, TOKEN, Work, run_replicas
from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.live.coordinator import Coordinator, ShardPlan
from kspark.live.transport import AggregatorServer
from kspark.weights import Weight, WeightSpec, Whole

MAX_GROWTH = 1.05
SETTLE_SECONDS = 10.0


def arguments() -> argparse.Namespace:
    parser = new_parser(load.__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="default: 600")
    parser.add_argument("--replicas", type=int, default=256, help="default: 256")
    parser.add_argument("--processes", type=int, default=4, help="of the replicas; default: 4")
    parser.add_argument("--megabytes", type=float, default=0.5, help="of the weights; default: 0.5")
    parser.add_argument(
        "--rest", type=float, default=1.0, help="mean seconds between two pushes; default: 1"
    )
    return parser.parse_args()


@dataclass(frozen=True)
class Usage:
    """What the driver's process holds: megabytes of memory, threads and open descriptors."""

    megabytes: float
    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> Usage:
        """The current usage, from `/proc`."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        size = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        return cls(size, threading.active_count(), len(os.listdir("/proc/self/fd")))

    def __str__(self) -> str:
        return f"{self.megabytes:7.0f} MB {self.threads:5} threads {self.descriptors:5} descriptors"


@dataclass
class Record:
    """What the replicas have said.

    Attributes:
        seconds: List of the seconds of exchanges since the last line.
        pushes: Mapping from process to its pushes so far.
        errors: Set of texts.
        usages: List of `Usage`, one per line.
    """

    seconds: list[float] = field(default_factory=list)
    pushes: dict[int, int] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)
    usages: list[Usage] = field(default_factory=list)

    def line(self, title: str) -> str:
        """A line about the time since the line before."""
        usage = Usage.now()
        self.usages.append(usage)
        took, self.seconds = 1000 * np.array(self.seconds or [np.nan]), []
        p50, p99 = np.percentile(took, [50, 99])
        return f"{title:>7} {len(took):9} exchanges {p50:8.1f} {p99:8.1f} ms {usage}"


def follow(pipes: list[Connection], record: Record) -> None:
    """Read what the replicas say, and print a line per minute, until all have ended."""
    begin, minute = time.monotonic(), 1
    open_pipes = dict(enumerate(pipes))
    while open_pipes:
        for number, pipe in list(open_pipes.items()):
            while pipe.poll(0.1):
                said = pipe.recv()
                if said is None:
                    del open_pipes[number]
                    break
                seconds, record.pushes[number], errors = said
                record.seconds += seconds
                record.errors.update(errors)
        if time.monotonic() - begin >= 60 * minute:
            print(record.line(f"{minute} min"), flush=True)
            minute += 1
    print(record.line("end"), flush=True)


def settled(before: Usage) -> Usage:
    """The usage when as few threads and descriptors are left as before, or after some seconds."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        usage = Usage.now()
        if usage.threads <= before.threads and usage.descriptors <= before.descriptors:
            return usage
        time.sleep(0.2)
    return Usage.now()


def verdict(record: Record, weights: np.ndarray, version: int, left: list[str]) -> list[str]:
    """What is wrong; empty if nothing is."""
    wrong = [*sorted(record.errors), *left]
    pushes = sum(record.pushes.values())
    if version != pushes:
        wrong.append(f"{pushes} pushes, but the version is {version}")
    if not (weights == pushes).all():
        wrong.append(f"{pushes} pushes, but weights are {weights.min():g} to {weights.max():g}")
    minutes = [usage.megabytes for usage in record.usages[:-1]]  # In the end, replicas are gone.
    if len(minutes) < 2:
        wrong.append("memory needs two minutes to be compared, so `--seconds` must be 130 or more")
    elif minutes[-1] > MAX_GROWTH * minutes[0]:
        wrong.append(f"memory grew from {minutes[0]:.0f} to {minutes[-1]:.0f} MB")
    return wrong


def main() -> None:
    args = arguments()
    size = int(args.megabytes * 1e6) // 8
    spec = WeightSpec((Weight("w", (size,), "float64", "trainable"),))
    aggregator = Aggregator(spec, np.zeros(size), optimizers.get("downpour"), "asynchronous")
    shards = {shard: ShardPlan(1, 1 << 40) for shard in range(args.replicas)}
    coordinator = Coordinator(aggregator, shards, Whole(spec), timeout=TIMEOUT)
    context = multiprocessing.get_context("spawn")
    context.Process(target=time.sleep, args=(0,)).start()  # What spawning itself keeps open.
    before, record, pipes, processes = Usage.now(), Record(), [], []
    print(f"{'before':>7} {'':>48}{before}", flush=True)
    server = AggregatorServer(
        coordinator, Whole(spec), TOKEN, host="127.0.0.1", timeout=TIMEOUT, broken_level=0
    )
    with server:
        for number in range(args.processes):
            here, there = context.Pipe()
            own = tuple(range(number, args.replicas, args.processes))
            work = Work(server.address[1], spec, own, args.seconds, args.rest)
            processes.append(context.Process(target=run_replicas, args=(there, work), daemon=True))
            processes[-1].start()
            pipes.append(here)
            there.close()
        follow(pipes, record)
        for process, pipe in zip(processes, pipes, strict=True):
            process.join()
            process.close()
            pipe.close()
    after = settled(before)
    print(f"{'after':>7} {'':>48}{after}")
    left = []
    for name in ("threads", "descriptors"):
        more = getattr(after, name) - getattr(before, name)
        left += [f"{more} {name} are left"] if more > 0 else []
    wrong = verdict(record, aggregator.weights, aggregator.version, left)
    pushes = sum(record.pushes.values())
    summary = f"{pushes} pushes of {args.replicas} replicas, each applied once"
    print("verdict: " + ("; ".join(wrong) if wrong else f"ok, {summary}"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
