"""Measure Parquet files in and out. `benchmarks.inference` starts this as a process.

Spark's and kspark's way take turns in one session, so that other load affects both alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common.model import NUM_WORKERS
from benchmarks.common.runs import answer
from benchmarks.inference.scoring import (
    BATCH_SIZE,
    NARROW_ROWS,
    NARROW_WIDTH,
    TURNS,
    narrow_model,
    written,
)
from benchmarks.inference.timing import timed


class FirstEpoch(keras.callbacks.Callback):
    """Notes when the first epoch begins."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the time."""
        self.began = time.perf_counter()


def run(case: dict[str, Any]) -> dict[str, float]:
    """Seconds to score from Parquet to Parquet, and until the first epoch, in either way."""
    from kspark import SparkModel
    from kspark.ml import KerasModel
    from kspark.session import local_session

    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        spark = local_session(NUM_WORKERS, memory="6g")
        path = write_rows(case["seed"], Path(folder))
        model = narrow_model(case["seed"])
        model.compile("adam", "binary_crossentropy")
        stage = KerasModel(model, inferenceBatchSize=BATCH_SIZE)
        spark_model = SparkModel(model, num_workers=NUM_WORKERS, batch_size=BATCH_SIZE)
        out = f"{folder}/out"

        def start(x: Any) -> float:
            first, began = FirstEpoch(), time.perf_counter()
            spark_model.fit(x, epochs=1, verbose=0, callbacks=[first])
            return first.began - began

        def seconds(work: Callable[[], Any]) -> float:
            return timed(work)[0]

        ways: dict[str, Callable[[], float]] = {
            "transform": lambda: seconds(
                lambda: written(folder)(stage.transform(spark.read.parquet(path)))
            ),
            "files": lambda: seconds(
                lambda: spark_model.predict(path, output=out, overwrite=True, verbose=0)
            ),
            "frame_start": lambda: start(spark.read.parquet(path)),
            "files_start": lambda: start(path),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(1 + TURNS):  # The first turn starts what each way needs.
            for name, way in ways.items():
                took = way()
                if turn:
                    found[name].append(took)
        spark.stop()
    return {name: statistics.median(values) for name, values in found.items()}


def write_rows(seed: int, folder: Path) -> str:
    """Write rows of float32 with a label to one Parquet file per worker, and return the path."""
    rng = np.random.default_rng(seed)
    x = rng.random((NARROW_ROWS, NARROW_WIDTH), dtype=np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int32)
    path = folder / "rows"
    path.mkdir()
    parts = zip(np.array_split(x, NUM_WORKERS), np.array_split(y, NUM_WORKERS), strict=True)
    for number, (features, label) in enumerate(parts):
        offsets = np.arange(len(label) + 1, dtype=np.int32) * NARROW_WIDTH
        lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(features.reshape(-1)))
        rows = pa.table({"features": lists, "label": label})
        pq.write_table(rows, path / f"{number}.parquet")
    return str(path)


if __name__ == "__main__":
    answer(run)
