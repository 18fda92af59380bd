"""Replicas that push when they are ready: a queue in front of the driver, simulated.

A worker computes, then its delta passes three places of which the driver has one each: the link
in, the processor (the message itself, and the lock in which a delta is added and the answer
copied), and the link out. Each serves one worker at a time, in the order in which they come.
Real connections share a link instead of queueing for it; what passes it in a second is the same.

For `k` workers, `n` exchanges each, `z` seconds between them and `d_i` at place `i`:

```
without contention   n (z + sum d_i)
saturated            n k max d_i            the slowest place never rests
```

The simulation lies between: no place can be passed faster, and whoever arrives while it is
taken waits.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import replace

from scale_costs import PLAIN, Cluster, CodecCosts, Costs, Epoch, Job, codec_of, compute_seconds

from kspark.errors import invalid

MOST_EXCHANGES = 64
"""Of each worker are simulated; an epoch of more is so many times as long."""

SPREAD = 0.1
"""Time between exchanges varies by so much, up and down: no two workers are alike."""


def simulate(
    workers: int, think: float, places: Sequence[float], exchanges: int, spread: float = SPREAD
) -> float:
    """Seconds until the last of all workers has done its exchanges.

    Every place serves in the order of arrival, and what overtakes nobody at the first place
    overtakes nobody at the next: it is enough to keep the order of those who come.

    Args:
        workers: Integer.
        think: Float, mean seconds that a worker computes before each exchange.
        places: Sequence of floats, seconds at each of the driver's places.
        exchanges: Integer, of each worker.
        spread: Float, part of `think` by which it varies at most.
    """
    if workers < 1 or exchanges < 1:
        name, value = ("workers", workers) if workers < 1 else ("exchanges", exchanges)
        raise invalid(name, "an integer >= 1", value)
    # Each worker has its own numbers, whoever comes first: so that epochs can be compared.
    draws = [random.Random(worker) for worker in range(workers)]

    def pause(worker: int) -> float:
        return think * (1 + draws[worker].uniform(-spread, spread))

    free_at, last = [0.0] * len(places), 0.0
    coming = [(pause(worker), worker, exchanges) for worker in range(workers)]
    heapq.heapify(coming)
    while coming:
        now, worker, left = heapq.heappop(coming)
        for number, seconds in enumerate(places):
            now = free_at[number] = max(now, free_at[number]) + seconds
        last = max(last, now)
        if left > 1:
            heapq.heappush(coming, (now + pause(worker), worker, left - 1))
    return last


def lower_bounds(
    workers: int, think: float, places: Sequence[float], exchanges: int
) -> tuple[float, float]:
    """The closed forms without contention, and of the slowest place that never rests."""
    return exchanges * (think + sum(places)), exchanges * workers * max(places)


def places_of(
    costs: Costs, cluster: Cluster, job: Job, used: CodecCosts, locked: bool
) -> tuple[float, float, float]:
    """Seconds of one exchange at the link in, the driver's processor, and the link out.

    The answer is weights, which are never compressed. Hogwild replicas add without a lock,
    as many at a time as the driver has cores.
    """
    m, per_byte = job.weight_bytes, max(1 / cluster.bandwidth, costs.wire / cluster.driver_cores)
    adding = costs.lock * m / (1 if locked else cluster.driver_cores)
    processor = costs.message_driver + used.decode * m / cluster.driver_cores + adding
    return used.ratio * m * per_byte, processor, m * per_byte


def detour(costs: Costs, cluster: Cluster, job: Job, used: CodecCosts) -> float:
    """Seconds of an exchange in which nobody else has to wait.

    The message's own way; and the bytes' way as far as one connection is slower than the link.
    """
    per_byte = max(1 / cluster.bandwidth, costs.wire / cluster.driver_cores)
    slower = max(0.0, costs.wire - per_byte) * (used.ratio + 1) * job.weight_bytes
    own = max(0.0, costs.message - costs.message_driver)
    return own + slower + 2 * cluster.latency


def epoch_of_pushes(
    costs: Costs,
    cluster: Cluster,
    job: Job,
    workers: int,
    frequency: int,
    codec: str = PLAIN,
    *,
    locked: bool = True,
) -> Epoch:
    """Asynchronous (`locked`) or hogwild over the network: a push every `frequency` steps."""
    if frequency < 1:
        raise invalid("frequency", "an integer >= 1", frequency)
    used, m = codec_of(costs, codec), job.weight_bytes
    exchanges = -(-job.steps(workers) // frequency)
    compute = compute_seconds(costs, cluster, job, workers)
    own = costs.delta.at(m) + used.encode * m
    beside = own * cluster.stretch(workers) + detour(costs, cluster, job, used)
    places = places_of(costs, cluster, job, used, locked)
    few = min(exchanges, MOST_EXCHANGES)
    think = compute / exchanges + beside
    total = simulate(workers, think, places, few) * exchanges / few
    if cluster.cores:  # the driver's work takes the same cores
        total = max(total, exchanges * (think + workers * sum(places) / cluster.cores))
    whole = Epoch(compute, worker=exchanges * beside, fixed=costs.live_epoch)
    rest = max(0.0, total - whole.compute - whole.worker)
    busiest = "driver" if places[1] >= max(places) else "link"
    return replace(whole, **{busiest: rest})
