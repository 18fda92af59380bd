"""One measured fit of a model of about 100 MB, in a process of its own.

`driver_memory.py` starts it, with one JSON document that says what to run and where
to write the result.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import keras
import numpy as np

from kspark import SparkModel
from kspark.job import tree
from kspark.session import local_session

INPUTS, ROWS_PER_SHARD = 1000, 4


def peak_megabytes(process: int | str = "self") -> float:
    """The largest resident size of a process so far."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def java_process() -> int:
    """The driver's JVM: the Java that this process has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text(encoding="utf-8").rpartition(")")
        except OSError:
            continue  # it has ended meanwhile
        if name.endswith("(java") and int(rest.split()[1]) == os.getpid():
            return int(folder.name)
    raise RuntimeError("There is no JVM among the children of this process.")


def build_model(megabytes: float) -> keras.Model:
    keras.utils.set_random_seed(0)
    width = int(megabytes * 1e6 / 4 / (INPUTS + 2))
    model = keras.Sequential(
        [keras.Input((INPUTS,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model


def main() -> None:
    case = json.loads(sys.argv[1])
    settings = {"spark.driver.memory": case["heap"], "spark.driver.maxResultSize": "0"}
    local_session(cores=1, executors=2, memory="3g", config=settings)
    if not case["tree"]:
        tree.TREE_SHARDS = sys.maxsize
    model = build_model(case["megabytes"])
    shards = case["shards"]
    random = np.random.default_rng(0)
    x = random.normal(size=(shards * ROWS_PER_SHARD, INPUTS)).astype("float32")
    started = time.perf_counter()
    spark_model = SparkModel(model, num_workers=shards, batch_size=ROWS_PER_SHARD, seed=1)
    spark_model.fit(x, x[:, :1], epochs=case["epochs"], verbose=0)
    figures = {
        "seconds": time.perf_counter() - started,
        "weights": 4 * model.count_params() / 1e6,
        "python": peak_megabytes(),
        "jvm": peak_megabytes(java_process()),
    }
    Path(case["result"]).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
