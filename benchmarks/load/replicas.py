"""Simulated replicas: threads with a connection each, which push and rest."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from kspark.live.transport import AggregatorClient
from kspark.weights import WeightSpec, Whole

TIMEOUT = 120.0
TOKEN = b"benchmark"
RETURN_SECONDS = 60.0
"""How often a replica of each process comes back as a new attempt."""


@dataclass(frozen=True)
class Work:
    """What the replicas of a process do.

    Attributes:
        port: Integer, the server's port on this machine.
        spec: `WeightSpec`.
        shards: Tuple of integers, one replica each.
        seconds: Float, how long they push.
        rest: Float, mean seconds between two pushes of a replica.
    """

    port: int
    spec: WeightSpec
    shards: tuple[int, ...]
    seconds: float
    rest: float


class Replica:
    """One replica. Its `run` is the function of a thread.

    Attributes:
        pushes: Integer, number of its pushes so far.
        times: List of pairs: when an exchange ended, and how many seconds it took.
        error: What ended it too early, or `None`.
    """

    def __init__(self, work: Work, shard: int, returns: threading.Event) -> None:
        self._work, self._shard, self._returns = work, shard, returns
        self._random = np.random.default_rng(shard)
        self._out = np.empty(work.spec.size, work.spec.dtype)
        self._delta = np.ones(work.spec.size, work.spec.dtype)
        self._attempt = self.pushes = 0
        self.times: list[tuple[float, float]] = []
        self.error: Exception | None = None

    def run(self, end: float) -> None:
        """Push until a moment of `time.monotonic`."""
        try:
            client = self._connect()
            while time.monotonic() < end:
                if self._returns.is_set():
                    self._returns.clear()
                    client.close()
                    self._attempt += 1
                    client = self._connect()
                    if self.pushes:
                        self._exchange(client, self.pushes)  # As if its answer had been lost.
                begin = time.perf_counter()
                self._exchange(client, self.pushes + 1)
                self.pushes += 1
                self.times.append((time.monotonic(), time.perf_counter() - begin))
                time.sleep(self._random.uniform(0, 2 * self._work.rest))
            client.close()
        except Exception as error:  # noqa: BLE001 (the verdict names it)
            self.error = error

    def _connect(self) -> AggregatorClient:
        work = self._work
        client = AggregatorClient(
            "127.0.0.1", work.port, TOKEN, Whole(work.spec), self._shard, self._attempt, TIMEOUT
        )
        start = client.connect().start
        if start.sequence != self.pushes:
            raise AssertionError(f"{self.pushes} pushes, but the driver has {start.sequence}.")
        client.pull(self._out)
        return client

    def _exchange(self, client: AggregatorClient, number: int) -> None:
        client.push(self._delta, sequence=number, base_version=0, num_examples=1, out=self._out)


def run_replicas(pipe: Connection, work: Work) -> None:
    """Run the replicas of a process. Sends what they did since the last time, about every second.

    What is sent is a tuple: list of seconds that exchanges took, pushes so far, and texts of
    errors. The last one is followed by `None`.
    """
    end = time.monotonic() + work.seconds
    events = [threading.Event() for _ in work.shards]
    replicas = [Replica(work, s, e) for s, e in zip(work.shards, events, strict=True)]
    threads = [threading.Thread(target=replica.run, args=(end,)) for replica in replicas]
    for thread in threads:
        thread.start()
    sent, returned, turn = [0] * len(replicas), time.monotonic(), 0
    while True:
        alive = any(thread.is_alive() for thread in threads)
        if time.monotonic() - returned >= RETURN_SECONDS:
            returned, turn = time.monotonic(), turn + 1
            events[turn % len(events)].set()
        seconds = []
        for i, replica in enumerate(replicas):
            new = replica.times[sent[i] :]
            sent[i] += len(new)
            seconds += [took for _, took in new]
        errors = [str(replica.error) for replica in replicas if replica.error is not None]
        pipe.send((seconds, sum(replica.pushes for replica in replicas), errors))
        if not alive:
            break
        time.sleep(1.0)
    pipe.send(None)
