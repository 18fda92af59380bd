"""Derive costs from measured epochs. Differences between epochs separate the costs."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.scaling.costs import CodecCosts, Costs, Curve, Line
from benchmarks.scaling.fits import (
    CHECK_BATCHES,
    LARGE,
    LONG,
    ROADS,
    SHORT,
    SMALL,
    Fit,
    Times,
    weight_bytes,
)

Measured = Mapping[Fit, Times]


def costs_from(measured: Measured, parts: Mapping[str, Any]) -> Costs:
    """Costs from measured fits, and from parts that were measured alone.

    Args:
        measured: Mapping with all of `cost_fits`.
        parts: Mapping with the fields of `Costs` that no fit is needed for.
    """
    steps = {units: step_seconds(measured, units) for units in SHORT}
    ends = [end_seconds(measured, road, parts) for road in ("batch", "often")]
    once, task = round_costs(measured, steps, parts["merge"])
    codecs = {name: CodecCosts(**values) for name, values in parts["codecs"].items()}
    return Costs(
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        step=Curve(tuple((weight_bytes(units), steps[units]) for units in SHORT)),
        round=once,
        task=task,
        live_epoch=statistics.mean(ends),
        gradient=exchange_costs(measured, steps, "batch"),
        delta=exchange_costs(measured, steps, "often"),
        **{**parts, "codecs": codecs},
    )


def step_seconds(measured: Measured, units: int) -> float:
    """Seconds of one step of a single worker.

    For rounds, this is the difference between a long and a short epoch. Epochs of the other
    roads contain exchanges, too, so that they are upper bounds. The smallest value is the best.
    """
    short, long = Fit("rounds", units, 1, SHORT[units]), Fit("rounds", units, 1, LONG[units])
    more = measured[long].computing - measured[short].computing
    bounds = [measured[Fit(road, units, 1, LONG[units])].computing for road in ROADS]
    return max(0.0, min(more / (long.batches - short.batches), min(bounds) / long.batches))


def exchange_costs(measured: Measured, steps: dict[int, float], road: str) -> Line:
    """What an exchange after every batch costs the worker, without waiting for the answer."""
    seconds = {}
    for units, batches in LONG.items():
        computing = measured[Fit(road, units, 1, batches)].computing
        seconds[units] = computing / batches - steps[units]
    return line_through(seconds)


def end_seconds(measured: Measured, road: str, parts: Mapping[str, Any]) -> float:
    """Seconds of a live epoch apart from computing and exchanges."""
    fit, m = Fit(road, SMALL, 1, LONG[SMALL]), weight_bytes(SMALL)
    merging = parts["lock"] if road == "often" else parts["mean"]
    exchange = parts["message"] + (2 * parts["wire"] + merging) * m
    times = measured[fit]
    return max(0.0, times.wall - times.computing - fit.batches * exchange)


def line_through(seconds: Mapping[int, float]) -> Line:
    """The line through the seconds of the small and the large model.

    Noise can make a coefficient negative. Then the line is constant if the large model took
    less time, and goes through zero otherwise.
    """
    (x, low), (far, high) = ((weight_bytes(units), seconds[units]) for units in (SMALL, LARGE))
    per_byte = max(0.0, (high - low) / (far - x))
    fixed = low - per_byte * x
    return Line(fixed, per_byte) if fixed >= 0 else Line(0.0, high / far)


def round_costs(measured: Measured, steps: dict[int, float], merge: float) -> tuple[Line, Line]:
    """The costs of a round and of each of its tasks, by least squares.

    Steps and merges are subtracted before. The worker's part is what it computes apart from its
    steps; the part of Spark and the driver is the rest of the epoch.
    """
    rows, rest, worker = [], [], {}
    for fit, times in measured.items():
        if fit.road != "rounds" or fit.batches == CHECK_BATCHES:
            continue
        m = weight_bytes(fit.units)
        rows.append([1.0, m, fit.workers, fit.workers * m])
        rest.append(times.wall - times.computing - fit.workers * merge * m)
        if fit.workers == 1 and fit.batches == SHORT[fit.units]:
            worker[fit.units] = max(0.0, times.computing - fit.batches * steps[fit.units])
    own = line_through(worker)
    fixed, per_byte, each, each_byte = non_negative(np.array(rows), np.array(rest))
    return Line(fixed + own.fixed, per_byte + own.per_byte), Line(each, each_byte)


def non_negative(x: np.ndarray, y: np.ndarray) -> list[float]:
    """Least squares with coefficients >= 0: the lowest negative one becomes 0, repeatedly."""
    used = list(range(x.shape[1]))
    values = np.zeros(x.shape[1])
    while used:
        solution = np.linalg.lstsq(x[:, used], y, rcond=None)[0]
        if solution.min() >= 0:
            values[used] = solution
            break
        used.pop(int(solution.argmin()))
    return values.tolist()
