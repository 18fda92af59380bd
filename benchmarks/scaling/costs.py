"""What an epoch costs on each road: the equations, as pure functions of measured costs.

For `k` workers and weights of `m` bytes, of which a delta or gradient takes `u` bytes when it
is sent, an epoch of `S = ceil(batches / k)` steps per worker takes

```
rounds    S s + F + k t + bc(m) + k u / B + k (c u + (dec + merge) m)            + (w + enc) m
tree      S s + F + G + (k + g) t + bc(m) + (p u + g m) / B + g (c + merge) m
                                                   + p (c u + (dec + merge) m)   + (w + enc) m
batch     E + 3 k m / B + S (s + 2 k u / B + k (h + (dec / C + mean) m) + enc m
                                                      + x + (y + enc + dec) m + msg)
pushes    E + what `scale_queue.epoch_of_pushes` finds for a queue of k workers
```

with `s` a step, `B` the bandwidth, `F` and `t` Spark's cost of a job and of a task, `G` that of
one stage more, `c` of collecting a byte, `w` what a round costs the worker per byte, `g =
ceil(sqrt(k))` groups of `p = ceil(k / g)` shards, `E` the end of a live epoch, `h` the driver's
part of a message, `msg` its round trip, `x + y m` what an exchange adds to the worker's loop, and
`C` the driver's cores. `enc` and `dec` are zero without compression. `bc(m)` is Spark's
broadcast: blocks of 4 MiB that hosts pass on to each other,

```
bc(m) = m / B + ceil(log2 k) min(m, 4 MiB) / B
```

The driver's link is one link: whatever every worker sends to it, or gets from it, adds up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kspark.errors import invalid

BROADCAST_BLOCK = 4 << 20
TREE_FROM = 16
"""Shards from which on executors sum deltas before the driver does."""

SPARK_LIMIT = 1 << 31
"""Bytes that one record of a Spark job may have in Python."""

PLAIN = "none"


@dataclass(frozen=True)
class Line:
    """Seconds that grow with the bytes: `fixed + per_byte * nbytes`."""

    fixed: float
    per_byte: float

    def at(self, nbytes: float) -> float:
        """Seconds for so many bytes."""
        return self.fixed + self.per_byte * nbytes


@dataclass(frozen=True)
class Curve:
    """Seconds through measured points: straight lines between them.

    Beyond the last point they are proportional to the bytes, before the first those of it.

    Attributes:
        points: Tuple of (bytes, seconds), in their order.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, nbytes: float) -> float:
        """Seconds for so many bytes."""
        if nbytes <= self.points[0][0]:
            return self.points[0][1]
        for (low, first), (high, second) in itertools.pairwise(self.points):
            if nbytes <= high:
                return first + (second - first) * (nbytes - low) / (high - low)
        last, seconds = self.points[-1]
        return seconds * nbytes / last


@dataclass(frozen=True)
class CodecCosts:
    """What a compression costs, per byte of the weights before it.

    Attributes:
        ratio: Float, bytes that are sent.
        encode: Float, seconds on the worker, error feedback included.
        decode: Float, seconds on the driver.
    """

    ratio: float
    encode: float
    decode: float


@dataclass(frozen=True)
class Costs:
    """What was measured, in seconds and seconds per byte.

    Attributes:
        machine: String, where it was measured.
        step: `Curve` over the bytes of the weights: one local batch on one core.
        round: `Line` over the same: what a round costs once, the steps aside.
        task: `Line` over the bytes of a payload: what each task of a round costs the driver.
        stage: Float, a second stage in a Spark job.
        merge: Float per byte of weights: one more delta in the weighted mean of a round.
        mean: Float, the same for a gradient in a meeting.
        live_epoch: Float, what an epoch of the live road costs once.
        gradient: `Line`, what bringing a gradient costs the worker, the message aside.
        delta: `Line`, the same for pushing a delta.
        message: Float, the round trip of an empty message on one host.
        message_driver: Float, the driver's own time in it.
        wire: Float per byte: one connection cannot be faster.
        lock: Float per byte of weights: adding a delta and copying the answer, in the lock.
        codecs: Mapping from name to `CodecCosts`.
    """

    machine: str
    step: Curve
    round: Line
    task: Line
    stage: float
    merge: float
    mean: float
    live_epoch: float
    gradient: Line
    delta: Line
    message: float
    message_driver: float
    wire: float
    lock: float
    codecs: Mapping[str, CodecCosts]

    def to_dict(self) -> dict[str, Any]:
        """The costs as JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Costs:
        """The reverse of `to_dict`."""
        names = ("round", "task", "gradient", "delta")
        lines = {name: Line(**document[name]) for name in names}
        step = Curve(tuple((nbytes, seconds) for nbytes, seconds in document["step"]["points"]))
        codecs = {name: CodecCosts(**values) for name, values in document["codecs"].items()}
        return cls(**{**document, **lines, "step": step, "codecs": codecs})


@dataclass(frozen=True)
class Cluster:
    """What the workers run on.

    Attributes:
        bandwidth: Float, bytes per second of each host's link, each way.
        latency: Float, seconds one way.
        driver_cores: Integer.
        cores: Integer, if all workers share so many cores of one host; `None` if each has
            one of its own.
        speed: Float, how many times faster than measured a step is.
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
        """How much longer work takes that all workers do at the same time."""
        return max(1.0, workers / self.cores) if self.cores else 1.0


@dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes:
        weight_bytes: Float.
        batches: Integer, in an epoch, of all workers together.
    """

    weight_bytes: float
    batches: int

    def steps(self, workers: int) -> int:
        """Steps of each worker in an epoch."""
        if workers < 1:
            raise invalid("workers", "an integer >= 1", workers)
        return -(-self.batches // workers)


@dataclass(frozen=True)
class Epoch:
    """Seconds of an epoch, by what they go to.

    Attributes:
        compute: Float, local steps.
        worker: Float, what exchanges cost a worker.
        fixed: Float, Spark's and the epoch's end.
        link: Float, on the network, most of it the driver's link.
        driver: Float, the driver's processor.
    """

    compute: float
    worker: float = 0.0
    fixed: float = 0.0
    link: float = 0.0
    driver: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(asdict(self).values())

    @property
    def limit(self) -> str:
        """What most of it goes to, computing aside."""
        parts = asdict(self)
        return max(parts.keys() - {"compute"}, key=lambda name: (parts[name], name))


def compute_seconds(costs: Costs, cluster: Cluster, job: Job, workers: int) -> float:
    """`S s`: the steps of an epoch."""
    step = costs.step.at(job.weight_bytes) / cluster.speed
    return job.steps(workers) * step * cluster.stretch(workers)


def codec_of(costs: Costs, name: str) -> CodecCosts:
    """The costs of a compression.

    Raises:
        ValueError: If it was not measured.
    """
    if name not in costs.codecs:
        raise invalid("codec", f"one of {sorted(costs.codecs)}", name)
    return costs.codecs[name]


def broadcast_seconds(cluster: Cluster, workers: int, nbytes: float) -> float:
    """`bc(m)`: the weights' way to all hosts, which pass blocks on to each other."""
    depth = math.ceil(math.log2(workers)) if workers > 1 else 0
    return (nbytes + depth * min(nbytes, BROADCAST_BLOCK)) / cluster.bandwidth


def rounds(costs: Costs, cluster: Cluster, job: Job, workers: int, codec: str = PLAIN) -> Epoch:
    """Synchronous, `"epoch"`: one Spark job, all deltas to the driver."""
    used, m = codec_of(costs, codec), job.weight_bytes
    sent = used.ratio * m
    return Epoch(
        compute=compute_seconds(costs, cluster, job, workers),
        worker=(costs.round.per_byte + used.encode) * m * cluster.stretch(workers),
        fixed=costs.round.fixed + workers * costs.task.fixed,
        link=broadcast_seconds(cluster, workers, m) + workers * sent / cluster.bandwidth,
        driver=workers * merge_seconds(costs, used, m),
    )


def tree(costs: Costs, cluster: Cluster, job: Job, workers: int, codec: str = PLAIN) -> Epoch:
    """Rounds in which, from 16 shards on, executors first sum groups of about the root of `k`.

    The sums travel to the driver as they are, not compressed.
    """
    plain = rounds(costs, cluster, job, workers, codec)
    if workers < TREE_FROM:
        return plain
    used, m = codec_of(costs, codec), job.weight_bytes
    groups = math.isqrt(workers - 1) + 1
    size = -(-workers // groups)
    own = size * merge_seconds(costs, used, m) * cluster.stretch(groups)
    moved = size * used.ratio * m + groups * m
    return Epoch(
        compute=plain.compute,
        worker=plain.worker + own,
        fixed=plain.fixed + costs.stage + groups * costs.task.fixed,
        link=broadcast_seconds(cluster, workers, m) + moved / cluster.bandwidth,
        driver=groups * (costs.task.per_byte + costs.merge) * m,
    )


def merge_seconds(costs: Costs, used: CodecCosts, weight_bytes: float) -> float:
    """`c u + (dec + merge) m`: collecting one delta, and its part in the mean."""
    return (costs.task.per_byte * used.ratio + used.decode + costs.merge) * weight_bytes


def meetings(costs: Costs, cluster: Cluster, job: Job, workers: int, codec: str = PLAIN) -> Epoch:
    """Synchronous, `"batch"`: the mean of all gradients after every step."""
    used, m, steps = codec_of(costs, codec), job.weight_bytes, job.steps(workers)
    own = costs.gradient.at(m) + (used.encode + used.decode) * m
    arrived = workers * (used.decode / cluster.driver_cores + costs.mean) * m + used.encode * m
    return Epoch(
        compute=compute_seconds(costs, cluster, job, workers),
        worker=steps * (own * cluster.stretch(workers) + costs.message + 2 * cluster.latency),
        fixed=costs.live_epoch,
        link=2 * steps * link_seconds(costs, cluster, workers, used.ratio * m)
        + 3 * link_seconds(costs, cluster, workers, m),
        driver=steps * (workers * costs.message_driver + arrived),
    )


def link_seconds(costs: Costs, cluster: Cluster, workers: int, nbytes: float) -> float:
    """So many bytes from or to each of the workers, through the driver's one link.

    A connection is no faster than one core copies; the driver has several.
    """
    together = workers * max(1 / cluster.bandwidth, costs.wire / cluster.driver_cores)
    alone = max(1 / cluster.bandwidth, costs.wire)
    return nbytes * max(together, alone)


def driver_bytes(road: str, job: Job, workers: int, ratio: float) -> float:
    """Memory for vectors that the driver needs at once.

    Rounds hold every delta as it came and, if it was compressed, as it is unpacked; the tree
    one sum per group; the live road two vectors, or three, for every connection.
    """
    m = job.weight_bytes
    packed = ratio < 1
    if road == "tree" and workers >= TREE_FROM:
        return (math.isqrt(workers - 1) + 3) * m
    if road in ("rounds", "tree"):
        return workers * ((ratio + 1) * m if packed else m) + 2 * m
    return workers * ((ratio + 2) * m if packed else 2 * m) + 2 * m


def obstacle(road: str, job: Job, workers: int, ratio: float, memory: float) -> str | None:
    """Why a road is closed whatever time it would take: "record" or "memory", or `None`."""
    sums = road == "tree" and workers >= TREE_FROM
    largest = job.weight_bytes * (1 if sums else ratio)
    if road in ("rounds", "tree") and largest >= SPARK_LIMIT:
        return "record"
    return "memory" if driver_bytes(road, job, workers, ratio) > memory else None
