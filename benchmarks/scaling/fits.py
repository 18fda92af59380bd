"""The fits that `--measure` runs, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FEATURES, CLASSES = 32, 10
SMALL, LARGE = 320, 1500
"""Units of both hidden layers, for weights of 0.5 and 9 MB."""

SHORT = {SMALL: 40, LARGE: 4}
LONG = {SMALL: 340, LARGE: 20}
"""Batches per epoch, by the size of the model."""

CHECK_BATCHES = 750
FREQUENCY = 10
WORKERS = (1, 2, 4)

ROADS: dict[str, tuple[str, str | int]] = {
    "rounds": ("synchronous", "epoch"),
    "batch": ("synchronous", "batch"),
    "often": ("asynchronous", "batch"),
    "pushes": ("asynchronous", FREQUENCY),
}
"""Mode and frequency of each road that is measured."""


@dataclass(frozen=True)
class Fit:
    """One fit to measure.

    Attributes:
        road: String, a key of `ROADS`.
        units: Integer, units of each hidden layer.
        workers: Integer, number of workers.
        batches: Integer, batches per epoch of all workers together.
    """

    road: str
    units: int
    workers: int
    batches: int


@dataclass(frozen=True)
class Times:
    """What was measured of a fit: the shortest of its epochs, without the first.

    Attributes:
        wall: Float, seconds of an epoch on the driver.
        computing: Float, seconds of an epoch in which the slowest worker did not wait.
    """

    wall: float
    computing: float


def weight_bytes(units: int) -> int:
    """Bytes of the model's float32 weights."""
    return 4 * ((FEATURES + 1) * units + (units + 1) * units + (units + 1) * CLASSES)


def steps_between_exchanges(road: str) -> int:
    """Steps between two exchanges of a live road."""
    return FREQUENCY if road == "pushes" else 1


def cost_fits() -> Iterator[Fit]:
    """The fits that costs are derived from: mostly of one worker."""
    for units in (SMALL, LARGE):
        yield Fit("rounds", units, 1, SHORT[units])
        for road in ROADS:
            yield Fit(road, units, 1, LONG[units])
        for workers in WORKERS[1:]:
            yield Fit("rounds", units, workers, workers * SHORT[units])


def check_fits() -> Iterator[Fit]:
    """The fits that predictions are compared with."""
    for road in ("rounds", "batch", "pushes"):
        for workers in WORKERS:
            yield Fit(road, SMALL, workers, CHECK_BATCHES)
