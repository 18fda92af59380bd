"""Seconds of an asynchronous epoch, by simulation of the queue in front of the driver.

A worker computes, then its delta passes three stations of the driver: the link in, the processor
(which handles the message, adds the delta and copies the weights) and the link out. A station
serves one worker at a time, in the order of arrival. Real connections share a link at the same
time, which moves as many bytes per second.

The result lies between two limits. For `k` workers with `n` exchanges each, `z` seconds between
exchanges and `d_i` seconds at station `i`, they are `n (z + sum d_i)` if nobody waits, and
`n k max d_i` if the slowest station is always busy.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.scaling.costs import PLAIN, CodecCosts, Costs
from benchmarks.scaling.equations import Cluster, Epoch, Job, compute_seconds, seconds_per_byte
from kspark.errors import invalid

MAX_EXCHANGES = 64
"""Exchanges per worker that are simulated. Longer epochs are extrapolated from these."""

SPREAD = 0.1
"""The largest relative deviation of the time between exchanges, since workers differ."""


def simulate(
    workers: int, think: float, stations: Sequence[float], exchanges: int, spread: float = SPREAD
) -> float:
    """Seconds until all workers have finished their exchanges.

    Args:
        workers: Integer, number of workers.
        think: Float, mean seconds that a worker computes before each exchange.
        stations: Sequence of floats, seconds at each station of the driver.
        exchanges: Integer, exchanges per worker.
        spread: Float, largest relative deviation from `think`.
    """
    for name, value in (("workers", workers), ("exchanges", exchanges)):
        if value < 1:
            raise invalid(name, "an integer >= 1", value)
    # Each worker has its own random numbers, so that its pauses do not depend on the order of
    # arrival, and epochs can be compared.
    generators = [random.Random(worker) for worker in range(workers)]

    def pause(worker: int) -> float:
        return think * (1 + generators[worker].uniform(-spread, spread))

    free_at, end = [0.0] * len(stations), 0.0
    arrivals = [(pause(worker), worker, exchanges) for worker in range(workers)]
    heapq.heapify(arrivals)
    while arrivals:
        now, worker, left = heapq.heappop(arrivals)
        # Workers keep their order from station to station, so that one heap is enough.
        for station, seconds in enumerate(stations):
            now = free_at[station] = max(now, free_at[station]) + seconds
        end = max(end, now)
        if left > 1:
            heapq.heappush(arrivals, (now + pause(worker), worker, left - 1))
    return end


def stations_of(
    costs: Costs, cluster: Cluster, job: Job, used: CodecCosts, locked: bool
) -> tuple[float, float, float]:
    """Seconds of one exchange on the link in, on the driver's processor and on the link out.

    The answer holds weights, which are never compressed. Without the lock, as in hogwild
    training, all cores of the driver add deltas at the same time.
    """
    m, per_byte = job.weight_bytes, seconds_per_byte(costs, cluster)
    adding = costs.lock * m / (1 if locked else cluster.driver_cores)
    processor = costs.message_driver + used.decode * m / cluster.driver_cores + adding
    return used.ratio * m * per_byte, processor, m * per_byte


def unshared_seconds(costs: Costs, cluster: Cluster, job: Job, used: CodecCosts) -> float:
    """Seconds of an exchange during which no other worker waits.

    These are the latency of the message, and the time by which a single connection is slower
    than the driver's link.
    """
    slower = max(0.0, costs.wire - seconds_per_byte(costs, cluster))
    moving = slower * (used.ratio + 1) * job.weight_bytes
    return max(0.0, costs.message - costs.message_driver) + moving + 2 * cluster.latency


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
    """Asynchronous training, or hogwild if not `locked`, with a push every `frequency` steps."""
    if frequency < 1:
        raise invalid("frequency", "an integer >= 1", frequency)
    used, m = costs.codec(codec), job.weight_bytes
    exchanges = -(-job.steps(workers) // frequency)
    compute = compute_seconds(costs, cluster, job, workers)
    packing = costs.delta.at(m) + used.encode * m
    unshared = packing * cluster.stretch(workers) + unshared_seconds(costs, cluster, job, used)
    stations = stations_of(costs, cluster, job, used, locked)
    simulated = min(exchanges, MAX_EXCHANGES)
    think = compute / exchanges + unshared
    total = simulate(workers, think, stations, simulated) * exchanges / simulated
    if cluster.cores:  # The driver uses the same cores as the workers.
        total = max(total, exchanges * (think + workers * sum(stations) / cluster.cores))
    epoch = Epoch(compute, worker=exchanges * unshared, fixed=costs.live_epoch)
    waiting = max(0.0, total - epoch.compute - epoch.worker)
    busiest = "driver" if stations[1] >= max(stations) else "link"
    return replace(epoch, **{busiest: waiting})
