"""A short run of few replicas, with real sockets in this process."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from benchmarks.load.__main__ import Record, Usage, verdict
from benchmarks.load.replicas import TIMEOUT, TOKEN, Replica, Work
from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.live.coordinator import Coordinator, ShardPlan
from kspark.live.transport import AggregatorServer
from kspark.weights import Weight, WeightSpec, Whole

TOO_SHORT = "memory needs two minutes to be compared, so `--seconds` must be 130 or more"


def test_every_push_is_applied_once_also_by_replicas_that_come_back():
    spec = WeightSpec((Weight("w", (10,), "float64", "trainable"),))
    aggregator = Aggregator(spec, np.zeros(10), optimizers.get("downpour"), "asynchronous")
    coordinator = Coordinator(aggregator, {s: ShardPlan(1, 1 << 40) for s in (0, 1)}, Whole(spec))
    with AggregatorServer(
        coordinator, Whole(spec), TOKEN, host="127.0.0.1", timeout=TIMEOUT
    ) as server:
        work = Work(server.address[1], spec, (0, 1), 1.0, 0.001)
        replicas = [Replica(work, shard, threading.Event()) for shard in work.shards]
        end = time.monotonic() + 1.0
        threads = [threading.Thread(target=replica.run, args=(end,)) for replica in replicas]
        for thread in threads:
            thread.start()
        replicas[1]._returns.set()
        for thread in threads:
            thread.join(60)
    pushes = sum(replica.pushes for replica in replicas)
    assert [replica.error for replica in replicas] == [None, None]
    assert replicas[1]._attempt == 1
    record = Record(pushes={0: pushes}, usages=[Usage(1, 1, 1)] * 3)
    assert verdict(record, aggregator.weights, aggregator.version, []) == []


@pytest.mark.parametrize(
    ("weights", "version", "usages", "left", "wrong"),
    [
        (3, 3, (100, 104, 9), [], []),
        (3, 4, (100, 100, 9), [], ["3 pushes, but the version is 4"]),
        (2, 3, (100, 100, 9), [], ["3 pushes, but weights are 2 to 2"]),
        (3, 3, (100, 9), [], [TOO_SHORT]),
        (3, 3, (9,), [], [TOO_SHORT]),
        (3, 3, (100, 106, 9), [], ["memory grew from 100 to 106 MB"]),
        (3, 3, (100, 100, 9), ["1 threads are left"], ["1 threads are left"]),
    ],
)
def test_verdicts(weights, version, usages, left, wrong):
    record = Record(pushes={0: 1, 1: 2}, usages=[Usage(m, 1, 1) for m in usages])
    assert verdict(record, np.full(4, weights), version, left) == wrong
