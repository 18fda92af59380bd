"""Measure the costs of kspark, and epochs to compare predictions with, on this machine.

Fits run one after the other, in a Spark session with as many slots as workers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import keras
import numpy as np

from benchmarks.common.epoch_clock import EpochClock
from benchmarks.scaling.derive import Measured, costs_from
from benchmarks.scaling.fits import (
    CLASSES,
    FEATURES,
    ROADS,
    SMALL,
    WORKERS,
    Fit,
    Times,
    check_fits,
    cost_fits,
    steps_between_exchanges,
    weight_bytes,
)
from benchmarks.scaling.parts import codec_costs, merging_costs, message_costs, seconds_of
from kspark import SparkModel
from kspark.session import local_session

BATCH_SIZE, EPOCHS = 64, 5


def build_model(units: int) -> keras.Model:
    """A compiled perceptron with two hidden layers."""
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


def run_fit(fit: Fit, epochs: int = EPOCHS) -> Times:
    """Measure one fit."""
    rng = np.random.default_rng(0)
    count = fit.batches * BATCH_SIZE
    x = rng.random((count, FEATURES), dtype="float32")
    y = rng.integers(0, CLASSES, count, dtype="int32")
    mode, frequency = ROADS[fit.road]
    clock = EpochClock()
    road = "rounds" if (mode, frequency) == ("synchronous", "epoch") else "auto"
    trainer = SparkModel(
        build_model(fit.units), mode, frequency, num_workers=fit.workers, road=road, seed=0
    )
    trainer.fit(x, y, BATCH_SIZE, epochs, verbose=0, callbacks=[clock])
    slowest = [max(w["seconds"] - w["waiting"] for w in e) for e in trainer.last_fit.workers]
    times = Times(float(clock.warm_epochs().min()), min(slowest[1:]))
    print(f"{fit}: {times}", file=sys.stderr, flush=True)
    return times


def measured(repeats: int, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Measure everything.

    Args:
        repeats: Integer, how often every fit runs. The shortest time counts.
        earlier: The result of an earlier call, whose times count as well, or `None`.

    Returns:
        The costs, the epochs to compare predictions with, and the times that both come from, as
        JSON data.
    """
    parts: dict[str, Any] = dict(merging_costs())
    parts["codecs"] = {name: asdict(costs) for name, costs in codec_costs().items()}
    parts |= message_costs(parts["lock"])
    times: dict[Fit, Times] = {}
    stages = []
    for workers in WORKERS * repeats:
        # With more slots than tasks, an epoch could run in a new Python worker.
        spark = local_session(workers, memory="2g")
        try:
            run_fit(Fit("rounds", SMALL, workers, workers), epochs=12)  # Warms up the JVM.
            stages.append(stage_seconds(spark))
            for fit in (*cost_fits(), *check_fits()):
                if fit.workers == workers:
                    times[fit] = shortest(run_fit(fit), times.get(fit))
        finally:
            spark.stop()
    parts["stage"] = min(stages)
    if earlier is not None:
        parts = least_of_all(parts, earlier["alone"])
        for fit, before in fits_in(earlier).items():
            times[fit] = shortest(before, times.get(fit))
    return document_of(times, parts)


def stage_seconds(spark: Any) -> float:
    """What a second stage adds to a small Spark job."""
    rows = spark.sparkContext.parallelize([(0, 1), (0, 2)], 1)
    two = seconds_of(lambda: rows.reduceByKey(max, 1).collect())
    return max(0.0, two - seconds_of(lambda: rows.map(list).collect()))


def document_of(times: Measured, parts: dict[str, Any]) -> dict[str, Any]:
    """A measurement as JSON data."""
    return {
        "costs": costs_from(times, parts).to_dict(),
        "checks": [check_of(fit, times[fit].wall) for fit in check_fits()],
        "alone": parts,
        "fits": [{**asdict(fit), **asdict(each)} for fit, each in times.items()],
    }


def check_of(fit: Fit, seconds: float) -> dict[str, Any]:
    """A measured epoch, described in the words of the prediction."""
    return {
        "road": "asynchronous" if fit.road == "pushes" else fit.road,
        "workers": fit.workers,
        "frequency": steps_between_exchanges(fit.road),
        "weight_bytes": weight_bytes(fit.units),
        "batches": fit.batches,
        "cores": os.cpu_count(),
        "seconds": seconds,
    }


def fits_in(document: Mapping[str, Any]) -> dict[Fit, Times]:
    """The fits of a measurement that `document_of` returned."""
    names = [field.name for field in fields(Fit)]
    return {
        Fit(*(entry[name] for name in names)): Times(entry["wall"], entry["computing"])
        for entry in document["fits"]
    }


def least_of_all(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The smaller one of each pair of figures, also in nested dictionaries."""
    return {
        name: (least_of_all if isinstance(value, dict) else min)(value, other[name])
        for name, value in one.items()
    }


def shortest(one: Times, other: Times | None) -> Times:
    """The shorter times of two runs of a fit."""
    if other is None:
        return one
    return Times(min(one.wall, other.wall), min(one.computing, other.computing))
