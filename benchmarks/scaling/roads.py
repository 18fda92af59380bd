"""All roads by name, and what follows from their seconds: speed-up, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scale_costs import (
    PLAIN,
    Cluster,
    Costs,
    Epoch,
    Job,
    codec_of,
    meetings,
    obstacle,
    rounds,
    tree,
)
from scale_queue import epoch_of_pushes

from kspark.errors import invalid

NAMES = ("rounds", "tree", "batch", "asynchronous", "hogwild")
WORKERS = tuple(2**i for i in range(1, 11))
"""2 to 1,024."""

HALF = 0.5


@dataclass(frozen=True)
class Study:
    """What all predictions of one picture or table have in common.

    Attributes:
        costs: `Costs`.
        cluster: `Cluster`.
        job: `Job`.
        frequency: Integer, steps between two pushes.
        memory: Float, bytes that the driver has for vectors.
    """

    costs: Costs
    cluster: Cluster
    job: Job
    frequency: int
    memory: float


def predict(study: Study, road: str, workers: int, codec: str = PLAIN) -> Epoch:
    """An epoch on a road.

    Raises:
        ValueError: If there is no such road.
    """
    if road not in NAMES:
        raise invalid("road", f"one of {list(NAMES)}", road)
    where = (study.costs, study.cluster, study.job, workers)
    synchronous = {"rounds": rounds, "tree": tree, "batch": meetings}
    if road in synchronous:
        return synchronous[road](*where, codec)
    return epoch_of_pushes(*where, study.frequency, codec, locked=road == "asynchronous")


def ways(costs: Costs) -> list[tuple[str, str]]:
    """Every road with every compression; hogwild has none."""
    plain = [(name, PLAIN) for name in NAMES]
    packed = [(n, c) for n in NAMES if n != "hogwild" for c in costs.codecs if c != PLAIN]
    return sorted(plain + packed, key=lambda way: NAMES.index(way[0]))


def barred(study: Study, road: str, workers: int, codec: str) -> str | None:
    """Why a road is closed to so many workers, or `None`; see `obstacle`."""
    ratio = codec_of(study.costs, codec).ratio
    return obstacle(road, study.job, workers, ratio, study.memory)


def alone_seconds(study: Study) -> float:
    """The same epoch by one worker that exchanges nothing."""
    step = study.costs.step.at(study.job.weight_bytes) / study.cluster.speed
    return study.job.batches * step


def efficiency(study: Study, epoch: Epoch, workers: int) -> float:
    """Speed-up over one worker that exchanges nothing, per worker."""
    return alone_seconds(study) / (workers * epoch.seconds)


@dataclass(frozen=True)
class Reach:
    """How far a road scales.

    Attributes:
        half: Integer, the most workers of which each is at least half as useful as one alone;
            0 if two are less.
        best: Integer, the workers with the shortest epoch.
        speed_up: Float, theirs.
        limit: String, what most of the epoch goes to at twice `half`, computing aside.
        barred: Pair of why the road is closed, and from how many workers on; or `None`.
    """

    half: int
    best: int
    speed_up: float
    limit: str
    barred: tuple[str, int] | None


def reach(study: Study, road: str, codec: str, counts: Sequence[int] = WORKERS) -> Reach:
    """How far a road scales, in powers of two; the driver's memory is looked at separately."""
    epochs = {k: predict(study, road, k, codec) for k in counts}
    useful = [k for k in counts if efficiency(study, epochs[k], k) >= HALF]
    half = max(useful, default=0)
    best = min(counts, key=lambda k: epochs[k].seconds)
    after = epochs[min((k for k in counts if k > half), default=counts[-1])]
    closed = [(why, k) for k in counts if (why := barred(study, road, k, codec))]
    speed_up = alone_seconds(study) / epochs[best].seconds
    return Reach(half, best, speed_up, after.limit, closed[0] if closed else None)
