"""Seconds of a synchronous epoch, as pure functions of costs, cluster and job.

`docs/scaling.md` has the equations with the same symbols. All workers share the driver's one
link: what each of them sends to the driver or receives from it adds up.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from benchmarks.scaling.costs import PLAIN, CodecCosts, Costs
from kspark.errors import invalid

BROADCAST_BLOCK = 4 << 20
"""Bytes per block of a Spark broadcast."""

GROUPS_FROM = 16
"""The number of workers from which on executors sum deltas before the driver does."""

SPARK_LIMIT = 1 << 31
"""The largest record of a Spark job in Python, in bytes."""


@dataclass(frozen=True)
class Cluster:
    """The hosts and their network.

    Attributes:
        bandwidth: Float, bytes per second of each host's link, in each direction.
        latency: Float, seconds in one direction.
        driver_cores: Integer, cores of the driver.
        cores: Integer, cores of the one host that all workers share, or `None` if each worker
            has a core of its own.
        speed: Float, speed of a worker's steps relative to the measured ones.
    """

    bandwidth: float = 1.25e9
    latency: float = 1e-4
    driver_cores: int = 16
    cores: int | None = None
    speed: float = 1.0

    def __post_init__(self) -> None:
        for name in ("bandwidth", "driver_cores", "speed"):
            if not getattr(self, name) > 0:
                raise invalid(name, "a number > 0", getattr(self, name))

    def stretch(self, workers: int) -> float:
        """How many times longer work takes if all workers do it at the same time."""
        return max(1.0, workers / self.cores) if self.cores else 1.0


@dataclass(frozen=True)
class Job:
    """The training job.

    Attributes:
        weight_bytes: Float, size of the weights.
        batches: Integer, batches per epoch of all workers together.
    """

    weight_bytes: float
    batches: int

    def steps(self, workers: int) -> int:
        """Steps per epoch of each worker."""
        if workers < 1:
            raise invalid("workers", "an integer >= 1", workers)
        return -(-self.batches // workers)


@dataclass(frozen=True)
class Epoch:
    """Seconds of an epoch, divided by what takes them.

    Attributes:
        compute: Float, the steps.
        worker: Float, the worker's part of the exchanges.
        fixed: Float, Spark and the end of the epoch.
        link: Float, the network, above all the driver's link.
        driver: Float, the driver's processor.
    """

    compute: float
    worker: float = 0.0
    fixed: float = 0.0
    link: float = 0.0
    driver: float = 0.0

    @property
    def seconds(self) -> float:
        """The whole epoch."""
        return sum(asdict(self).values())

    @property
    def limit(self) -> str:
        """The name of the largest part, apart from `compute`."""
        parts = asdict(self)
        return max(parts.keys() - {"compute"}, key=lambda name: (parts[name], name))


def compute_seconds(costs: Costs, cluster: Cluster, job: Job, workers: int) -> float:
    """Seconds of the steps of an epoch."""
    step = costs.step.at(job.weight_bytes) / cluster.speed
    return job.steps(workers) * step * cluster.stretch(workers)


def broadcast_seconds(cluster: Cluster, workers: int, nbytes: float) -> float:
    """Seconds of a Spark broadcast, in which hosts pass blocks on to each other."""
    depth = math.ceil(math.log2(workers)) if workers > 1 else 0
    return (nbytes + depth * min(nbytes, BROADCAST_BLOCK)) / cluster.bandwidth


def rounds(costs: Costs, cluster: Cluster, job: Job, workers: int, codec: str = PLAIN) -> Epoch:
    """Synchronous, frequency "epoch": one Spark job whose deltas all come to the driver."""
    used, m = costs.codec(codec), job.weight_bytes
    sent = used.ratio * m
    return Epoch(
        compute=compute_seconds(costs, cluster, job, workers),
        worker=(costs.round.per_byte + used.encode) * m * cluster.stretch(workers),
        fixed=costs.round.fixed + workers * costs.task.fixed,
        link=broadcast_seconds(cluster, workers, m) + workers * sent / cluster.bandwidth,
        driver=workers * merge_seconds(costs, used, m),
    )


def grouped_rounds(
    costs: Costs, cluster: Cluster, job: Job, workers: int, codec: str = PLAIN
) -> Epoch:
    """Rounds in which, from 16 workers on, executors sum the deltas of groups.

    There are about as many groups as each has workers. Sums are sent uncompressed.
    """
    single = rounds(costs, cluster, job, workers, codec)
    if workers < GROUPS_FROM:
        return single
    used, m = costs.codec(codec), job.weight_bytes
    groups = num_groups(workers)
    size = -(-workers // groups)
    summing = size * merge_seconds(costs, used, m) * cluster.stretch(groups)
    moved = size * used.ratio * m + groups * m
    return Epoch(
        compute=single.compute,
        worker=single.worker + summing,
        fixed=single.fixed + costs.stage + groups * costs.task.fixed,
        link=broadcast_seconds(cluster, workers, m) + moved / cluster.bandwidth,
        driver=groups * (costs.task.per_byte + costs.merge) * m,
    )


def num_groups(workers: int) -> int:
    """The square root of the number of workers, rounded up."""
    return math.isqrt(workers - 1) + 1


def merge_seconds(costs: Costs, used: CodecCosts, weight_bytes: float) -> float:
    """Seconds to collect one delta through Spark and add it to the mean."""
    return (costs.task.per_byte * used.ratio + used.decode + costs.merge) * weight_bytes


def meetings(costs: Costs, cluster: Cluster, job: Job, workers: int, codec: str = PLAIN) -> Epoch:
    """Synchronous, frequency "batch": the mean of all gradients after every step."""
    used, m, steps = costs.codec(codec), job.weight_bytes, job.steps(workers)
    exchange = costs.gradient.at(m) + (used.encode + used.decode) * m
    mean = workers * (used.decode / cluster.driver_cores + costs.mean) * m + used.encode * m
    return Epoch(
        compute=compute_seconds(costs, cluster, job, workers),
        worker=steps * (exchange * cluster.stretch(workers) + costs.message + 2 * cluster.latency),
        fixed=costs.live_epoch,
        link=2 * steps * link_seconds(costs, cluster, workers, used.ratio * m)
        + 3 * link_seconds(costs, cluster, workers, m),
        driver=steps * (workers * costs.message_driver + mean),
    )


def seconds_per_byte(costs: Costs, cluster: Cluster) -> float:
    """Seconds per byte of the driver's link, if all cores of the driver serve connections."""
    return max(1 / cluster.bandwidth, costs.wire / cluster.driver_cores)


def link_seconds(costs: Costs, cluster: Cluster, workers: int, nbytes: float) -> float:
    """Seconds to send so many bytes to each worker, or to receive them from each.

    A single connection is limited by the core that serves it.
    """
    together = workers * seconds_per_byte(costs, cluster)
    return nbytes * max(together, 1 / cluster.bandwidth, costs.wire)


def driver_bytes(road: str, job: Job, workers: int, ratio: float) -> float:
    """The driver's memory for vectors.

    In rounds, the driver holds every delta as it was sent and, if it was compressed, also
    uncompressed. With groups it holds one sum per group. In the other modes it holds two vectors
    per connection, or three with compression.
    """
    m = job.weight_bytes
    packed = ratio < 1
    if road == "groups" and workers >= GROUPS_FROM:
        return (num_groups(workers) + 2) * m
    if road in ("rounds", "groups"):
        return workers * ((ratio + 1) * m if packed else m) + 2 * m
    return workers * ((ratio + 2) * m if packed else 2 * m) + 2 * m


def obstacle(road: str, job: Job, workers: int, ratio: float, memory: float) -> str | None:
    """The reason why training is impossible: "record" or "memory"; or `None`.

    "record" means that a delta is too large for Spark, "memory" that the driver's `memory` in
    bytes is too small.
    """
    sums = road == "groups" and workers >= GROUPS_FROM
    largest = job.weight_bytes * (1 if sums else ratio)
    if road in ("rounds", "groups") and largest >= SPARK_LIMIT:
        return "record"
    return "memory" if driver_bytes(road, job, workers, ratio) > memory else None
