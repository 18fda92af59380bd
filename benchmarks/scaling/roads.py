"""Predictions by road, and what follows from them: speed-up, efficiency and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scaling.costs import PLAIN, Costs
from benchmarks.scaling.equations import Cluster, Epoch, Job, grouped_rounds, meetings, rounds
from benchmarks.scaling.equations import obstacle as obstacle_of
from benchmarks.scaling.queue import epoch_of_pushes
from kspark.errors import invalid

SYNCHRONOUS = {"rounds": rounds, "groups": grouped_rounds, "batch": meetings}
ROADS = (*SYNCHRONOUS, "asynchronous", "hogwild")
WORKERS = tuple(2**i for i in range(1, 11))


@dataclass(frozen=True)
class Study:
    """What all predictions of one table or picture share.

    Attributes:
        costs: `Costs`.
        cluster: `Cluster`.
        job: `Job`.
        frequency: Integer, steps between two pushes.
        memory: Float, the driver's memory for vectors, in bytes.
    """

    costs: Costs
    cluster: Cluster
    job: Job
    frequency: int
    memory: float


def predict(study: Study, road: str, workers: int, codec: str = PLAIN) -> Epoch:
    """An epoch on a road.

    Raises:
        ValueError: If `road` is not one of `ROADS`.
    """
    if road not in ROADS:
        raise invalid("road", f"one of {list(ROADS)}", road)
    setting = (study.costs, study.cluster, study.job, workers)
    if road in SYNCHRONOUS:
        return SYNCHRONOUS[road](*setting, codec)
    return epoch_of_pushes(*setting, study.frequency, codec, locked=road == "asynchronous")


def ways(costs: Costs) -> list[tuple[str, str]]:
    """All pairs of a road and a codec. Hogwild has no compression."""
    codecs = [PLAIN, *(name for name in costs.codecs if name != PLAIN)]
    return [(road, c) for road in ROADS for c in codecs if road != "hogwild" or c == PLAIN]


def obstacle(study: Study, road: str, workers: int, codec: str) -> str | None:
    """The reason why training with so many workers is impossible, or `None`."""
    ratio = study.costs.codec(codec).ratio
    return obstacle_of(road, study.job, workers, ratio, study.memory)


def single_worker_seconds(study: Study) -> float:
    """Seconds of the same epoch for one worker that exchanges nothing."""
    step = study.costs.step.at(study.job.weight_bytes) / study.cluster.speed
    return study.job.batches * step


def efficiency(study: Study, epoch: Epoch, workers: int) -> float:
    """Speed-up per worker over one worker that exchanges nothing."""
    return single_worker_seconds(study) / (workers * epoch.seconds)


@dataclass(frozen=True)
class Reach:
    """How far a road scales.

    Attributes:
        half: Integer, largest number of workers with an efficiency of at least one half, or 0.
        best: Integer, number of workers with the shortest epoch.
        speed_up: Float, speed-up of `best` workers.
        limit: String, largest part of the epoch, apart from computing, for the next number of
            workers after `half`.
        obstacle: Pair of a reason and the number of workers from which on training is
            impossible, or `None`.
    """

    half: int
    best: int
    speed_up: float
    limit: str
    obstacle: tuple[str, int] | None


def reach(study: Study, road: str, codec: str, counts: Sequence[int] = WORKERS) -> Reach:
    """How far a road scales, among the given numbers of workers.

    Obstacles do not change the other figures.
    """
    epochs = {k: predict(study, road, k, codec) for k in counts}
    half = max((k for k in counts if efficiency(study, epochs[k], k) >= 0.5), default=0)
    best = min(counts, key=lambda k: epochs[k].seconds)
    after = min((k for k in counts if k > half), default=counts[-1])
    obstacles = ((reason, k) for k in counts if (reason := obstacle(study, road, k, codec)))
    speed_up = single_worker_seconds(study) / epochs[best].seconds
    return Reach(half, best, speed_up, epochs[after].limit, next(obstacles, None))
