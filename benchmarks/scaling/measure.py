"""Measured costs of kspark on this machine, and measured epochs to check the model against.

Fits run one after the other, in a Spark session of as many slots as workers, each of one
thread. Costs come from epochs of one worker, and from short rounds of several, with two sizes
of a model; the epochs that the equations have to predict are others. Figures are the least of a
fit's epochs, of which the first is left out: what else runs on a machine can only add to them.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import keras
import numpy as np
from scale_costs import CodecCosts, Costs, Curve, Line
from scale_parts import codec_costs, merging_costs, message_costs, seconds_of
from training_case import EpochClock

from kspark import SparkModel
from kspark.session import local_session

BATCH_SIZE = 64
FEATURES, CLASSES = 32, 10
SMALL, LARGE = 320, 1500  # units of both hidden layers: 0.5 and 9 MB
SHORT = {SMALL: 40, LARGE: 4}
LONG = {SMALL: 340, LARGE: 20}
FREQUENCY = 10
CHECK_BATCHES = 750
WORKERS = (1, 2, 4)
EPOCHS = 5

ROADS: dict[str, tuple[str, str | int]] = {
    "rounds": ("synchronous", "epoch"),
    "batch": ("synchronous", "batch"),
    "often": ("asynchronous", "batch"),
    "pushes": ("asynchronous", FREQUENCY),
}
COST_ROADS, CHECK_ROADS = ("rounds", "batch", "often", "pushes"), ("rounds", "batch", "pushes")


@dataclass(frozen=True)
class Case:
    """One fit to measure.

    Attributes:
        road: A key of `ROADS`.
        units: Integer, of the hidden layers.
        workers: Integer.
        batches: Integer, of all workers together.
    """

    road: str
    units: int
    workers: int
    batches: int


def weight_bytes(units: int) -> int:
    """Bytes of the model's weights, which are float32."""
    return 4 * ((FEATURES + 1) * units + (units + 1) * units + (units + 1) * CLASSES)


def build_model(units: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@dataclass(frozen=True)
class Found:
    """What was measured of a fit: the least of its warm epochs.

    Attributes:
        wall: Float, seconds of an epoch on the driver.
        computing: Float, of these, those that the slowest worker did not wait in.
    """

    wall: float
    computing: float


def run_fit(case: Case, epochs: int = EPOCHS) -> Found:
    """Measure one fit."""
    rng = np.random.default_rng(0)
    count = case.batches * BATCH_SIZE
    x = rng.random((count, FEATURES), dtype="float32")
    y = rng.integers(0, CLASSES, count, dtype="int32")
    mode, frequency = ROADS[case.road]
    clock = EpochClock()
    trainer = SparkModel(build_model(case.units), mode, frequency, num_workers=case.workers, seed=0)
    trainer.fit(x, y, BATCH_SIZE, epochs, verbose=0, callbacks=[clock])
    slowest = [max(w["seconds"] - w["waiting"] for w in e) for e in trainer.last_fit.workers]
    found = Found(float(np.diff(clock.ends).min()), min(slowest[1:]))
    print(f"{case}: {found}", file=sys.stderr, flush=True)
    return found


def measured(repeats: int, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Costs, the epochs to check, and all that they come from, as JSON data.

    Args:
        repeats: Integer, how often all fits are run; the least of their seconds count.
        earlier: What an earlier call returned; what took less then counts, too.
    """
    alone: dict[str, Any] = dict(merging_costs())
    alone["codecs"] = {name: asdict(costs) for name, costs in codec_costs().items()}
    alone |= message_costs(alone["lock"])
    found: dict[Case, Found] = {}
    stages = []
    for workers in WORKERS * repeats:
        # With more slots than tasks, an epoch may be a Python worker's first.
        spark = local_session(workers, memory="2g")
        try:
            run_fit(Case("rounds", SMALL, workers, workers), 12)  # some jobs warm up the JVM
            stages.append(stage_seconds(spark))
            chosen = [case for case in (*cost_cases(), *check_cases()) if case.workers == workers]
            for case in chosen:
                found[case] = least(run_fit(case), found.get(case))
        finally:
            spark.stop()
    alone["stage"] = min(stages)
    if earlier is None:
        return document_of(found, alone)
    for case, fit in fits_in(earlier).items():
        found[case] = least(fit, found.get(case))
    return document_of(found, least_of_all(alone, earlier["alone"]))


def document_of(found: Mapping[Case, Found], alone: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a measurement."""
    return {
        "costs": costs_from(found, alone).to_dict(),
        "checks": [check_of(case, found[case].wall) for case in check_cases()],
        "alone": alone,
        "fits": [{**asdict(case), **asdict(fit)} for case, fit in found.items()],
    }


def fits_in(document: Mapping[str, Any]) -> dict[Case, Found]:
    """The fits of a measurement."""
    names = [field.name for field in fields(Case)]
    return {
        Case(*(fit[name] for name in names)): Found(fit["wall"], fit["computing"])
        for fit in document["fits"]
    }


def least_of_all(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The least of each figure."""
    return {
        name: least_of_all(value, other[name])
        if isinstance(value, dict)
        else min(value, other[name])
        for name, value in one.items()
    }


def least(one: Found, other: Found | None) -> Found:
    """The least of what two fits of a case took."""
    if other is None:
        return one
    return Found(min(one.wall, other.wall), min(one.computing, other.computing))


def cost_cases() -> Iterator[Case]:
    """Epochs of one worker, and short rounds of several."""
    for units in (SMALL, LARGE):
        yield Case("rounds", units, 1, SHORT[units])
        for road in COST_ROADS:
            yield Case(road, units, 1, LONG[units])
        for workers in WORKERS[1:]:
            yield Case("rounds", units, workers, workers * SHORT[units])


def check_cases() -> Iterator[Case]:
    """What the model has to predict."""
    for road in CHECK_ROADS:
        for workers in WORKERS:
            yield Case(road, SMALL, workers, CHECK_BATCHES)


def check_of(case: Case, seconds: float) -> dict[str, Any]:
    """A measured epoch as `scale_model` predicts it."""
    road = "asynchronous" if case.road == "pushes" else case.road
    return {
        "road": road,
        "workers": case.workers,
        "frequency": every(case.road),
        "weight_bytes": weight_bytes(case.units),
        "batches": case.batches,
        "cores": os.cpu_count(),
        "seconds": seconds,
    }


def stage_seconds(spark: Any) -> float:
    """What a second stage adds to a small Spark job."""
    rows = spark.sparkContext.parallelize([(0, 1), (0, 2)], 1)
    two = seconds_of(lambda: rows.reduceByKey(max, 1).collect())
    return max(0.0, two - seconds_of(lambda: rows.map(list).collect()))


def costs_from(found: Mapping[Case, Found], alone: Mapping[str, Any]) -> Costs:
    """Costs per step, round, exchange and byte, from epochs of known length and size."""
    steps = {units: step_seconds(found, units) for units in SHORT}
    once, task = round_costs(found, steps, alone["merge"])
    codecs = {name: CodecCosts(**values) for name, values in alone["codecs"].items()}
    return Costs(
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        step=Curve(tuple((weight_bytes(units), steps[units]) for units in SHORT)),
        round=once,
        task=task,
        live_epoch=statistics.mean(live_end(found, road, alone) for road in ("batch", "often")),
        gradient=line_through({u: extra(found, steps, "batch", u) for u in SHORT}),
        delta=line_through({u: extra(found, steps, "often", u) for u in SHORT}),
        **{**alone, "codecs": codecs},
    )


def step_seconds(found: Mapping[Case, Found], units: int) -> float:
    """One step of the only worker.

    Of rounds, the difference between long and short epochs; of the other roads, a step and
    what its exchange takes. Each can only be too long: the least of them is the best.
    """
    short, *long = [Case("rounds", units, 1, SHORT[units])] + [
        Case(road, units, 1, LONG[units]) for road in COST_ROADS
    ]
    more = found[long[0]].computing - found[short].computing
    bounds = [found[case].computing / case.batches for case in long]
    return max(0.0, min(more / (long[0].batches - short.batches), *bounds))


def every(road: str) -> int:
    """Steps between two exchanges."""
    return FREQUENCY if road == "pushes" else 1


def extra(found: Mapping[Case, Found], steps: dict[int, float], road: str, units: int) -> float:
    """What an exchange costs the worker, beside the message, for which it waits."""
    case = Case(road, units, 1, LONG[units])
    return found[case].computing / case.batches - steps[units]


def live_end(found: Mapping[Case, Found], road: str, alone: Mapping[str, Any]) -> float:
    """What a live epoch takes beside computing and exchanges."""
    case, m = Case(road, SMALL, 1, LONG[SMALL]), weight_bytes(SMALL)
    merging = alone["lock"] if road == "often" else alone["mean"]
    exchange = alone["message"] + (2 * alone["wire"] + merging) * m
    return max(0.0, found[case].wall - found[case].computing - case.batches * exchange)


def line_through(points: dict[int, float]) -> Line:
    """The line through the small and the large model; what is below zero is noise.

    If the large one costs less, all do what the small one does.
    """
    (x, low), (far, high) = ((weight_bytes(units), points[units]) for units in (SMALL, LARGE))
    per_byte = max(0.0, (high - low) / (far - x))
    fixed = low - per_byte * x
    return Line(fixed, per_byte) if fixed >= 0 else Line(0.0, high / far)


def round_costs(
    found: Mapping[Case, Found], steps: dict[int, float], merge: float
) -> tuple[Line, Line]:
    """A round's own costs, and each task's, by least squares once steps and merges are off.

    The worker's own part is what its computing takes beside the steps; Spark's, and the
    driver's, what the epoch takes beside that.
    """
    rows, rest, own = [], [], {}
    for case, seconds in found.items():
        if case.road != "rounds" or case.batches == CHECK_BATCHES:
            continue
        m = weight_bytes(case.units)
        rows.append([1.0, m, case.workers, case.workers * m])
        rest.append(seconds.wall - seconds.computing - case.workers * merge * m)
        if case.workers == 1 and case.batches == SHORT[case.units]:
            own[case.units] = max(0.0, seconds.computing - case.batches * steps[case.units])
    worker = line_through(own)
    fixed, per_byte, each, each_byte = non_negative(np.array(rows), np.array(rest))
    once = Line(fixed + worker.fixed, per_byte + worker.per_byte)
    return once, Line(each, each_byte)


def non_negative(x: np.ndarray, y: np.ndarray) -> list[float]:
    """Least squares in which no coefficient is below zero: the lowest is left out until none is."""
    used = list(range(x.shape[1]))
    while used:
        found = np.linalg.lstsq(x[:, used], y, rcond=None)[0]
        if found.min() >= 0:
            break
        used.pop(int(found.argmin()))
    values = dict(zip(used, found, strict=True)) if used else {}
    return [float(values.get(i, 0.0)) for i in range(x.shape[1])]
