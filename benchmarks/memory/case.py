"""Measure the driver's memory in one fit. `benchmarks.memory` starts this as a process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.common.runs import answer
from kspark import SparkModel
from kspark.job import groups
from kspark.session import local_session

INPUTS, ROWS_PER_SHARD = 1000, 4


def peak_megabytes(process: int | str = "self") -> float:
    """The largest resident size that a process has had so far."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def java_process() -> int:
    """The process id of the driver's JVM, which is a child of this process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text(encoding="utf-8").rpartition(")")
        except OSError:
            continue  # The process has ended since its folder was listed.
        if name.endswith("(java") and int(rest.split()[1]) == os.getpid():
            return int(folder.name)
    raise RuntimeError("This process has no child that is a JVM.")


def build_model(megabytes: float) -> keras.Model:
    """A compiled perceptron whose weights take about `megabytes`."""
    keras.utils.set_random_seed(0)
    width = int(megabytes * 1e6 / 4 / (INPUTS + 2))
    model = keras.Sequential(
        [keras.Input((INPUTS,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model


def run(case: dict[str, Any]) -> dict[str, float]:
    settings = {"spark.driver.memory": case["heap"], "spark.driver.maxResultSize": "0"}
    local_session(cores=1, executors=2, memory="3g", config=settings)
    if not case["groups"]:
        groups.MIN_GROUPED_SHARDS = sys.maxsize
    model = build_model(case["megabytes"])
    shards = case["shards"]
    random = np.random.default_rng(0)
    x = random.normal(size=(shards * ROWS_PER_SHARD, INPUTS)).astype("float32")
    started = time.perf_counter()
    spark_model = SparkModel(model, num_workers=shards, batch_size=ROWS_PER_SHARD, seed=1)
    spark_model.fit(x, x[:, :1], epochs=case["epochs"], verbose=0)
    return {
        "seconds": time.perf_counter() - started,
        "python": peak_megabytes(),
        "jvm": peak_megabytes(java_process()),
    }


if __name__ == "__main__":
    answer(run)
