"""One measured pipeline, of Keras or of kspark, in a process of its own.

`inference.py` starts it, with one JSON document that says what to run and where
to write the result.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import mnist
import numpy as np
from training_case import NUM_WORKERS, build_model

BATCH_SIZE, EPOCHS, WARM = 64, 3, 3


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it returned."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def first_and_warm(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the first call, and the median of some more."""
    first, *more = (timed(work)[0] for _ in range(1 + WARM))
    return {"first": first, "warm": statistics.median(more)}


def run_keras(case: dict[str, Any]) -> dict[str, float]:
    x, y, *_ = mnist.read(case["data"])
    model = build_model(case["seed"])
    fit, _ = timed(lambda: model.fit(x, y, BATCH_SIZE, EPOCHS, verbose=0))
    again = build_model(case["seed"])
    refit, _ = timed(lambda: again.fit(x, y, BATCH_SIZE, EPOCHS, verbose=0))
    predicting = first_and_warm(lambda: model.predict(x, batch_size=4096, verbose=0).mean())
    return {"fit": fit, "refit": refit, **predicting}


def run_kspark(case: dict[str, Any]) -> dict[str, float]:
    from kspark.ml import to_data_frame
    from kspark.session import local_session

    x, y, *_ = mnist.read(case["data"])
    spark = local_session(NUM_WORKERS, memory="6g")

    def frame() -> Any:
        made = to_data_frame(spark.sparkContext, x, y).cache()
        made.count()
        return made

    build, rows = timed(frame)
    stage = classifier(build_model(case["seed"]), case, EPOCHS)
    fit, fitted = timed(lambda: stage.fit(rows))
    refit, _ = timed(lambda: stage.fit(rows))
    predicting = first_and_warm(lambda: fitted.transform(rows).agg({"prediction": "avg"}).collect())
    spark.stop()
    return {"frame": build, "fit": fit, "refit": refit, **predicting}


def classifier(model: keras.Model, case: dict[str, Any], epochs: int) -> Any:
    """The stage under test."""
    from kspark.ml import KerasClassifier

    return KerasClassifier(
        model, epochs=epochs, batchSize=BATCH_SIZE, numWorkers=NUM_WORKERS, seed=case["seed"]
    )


def run_memory(case: dict[str, Any]) -> dict[str, float]:
    """Largest resident bytes of a Python worker after a fit, and of one after a transform."""
    from kspark.session import local_session

    model, rows = build_model(case["seed"]), NUM_WORKERS * case["rows"]
    spark = local_session(NUM_WORKERS, memory="6g")
    frame = spark.range(0, rows, numPartitions=NUM_WORKERS).mapInArrow(
        made_rows, "features array<float>, label int"
    )
    fitted = classifier(model, case, 1).fit(frame)
    fit = peak(spark)
    spark.stop()
    spark = local_session(NUM_WORKERS, memory="6g")  # new Python workers
    frame = spark.range(0, rows, numPartitions=NUM_WORKERS).mapInArrow(
        made_rows, "features array<float>, label int"
    )
    fitted.transform(frame).agg({"prediction": "avg"}).collect()
    transform = peak(spark)
    spark.stop()
    return {"fit": fit, "transform": transform}


def made_rows(batches: Iterator[Any]) -> Iterator[Any]:
    """Random rows and labels for a range of ids."""
    import pyarrow as pa

    for batch in batches:
        random = np.random.default_rng(batch.column(0)[0].as_py() if batch.num_rows else 0)
        size = mnist.SIDE**2
        values = pa.array(random.random(batch.num_rows * size, dtype=np.float32))
        offsets = np.arange(batch.num_rows + 1, dtype=np.int32) * size
        columns = [
            pa.ListArray.from_arrays(pa.array(offsets), values),
            pa.array(random.integers(0, 10, batch.num_rows, dtype=np.int32)),
        ]
        yield pa.RecordBatch.from_arrays(columns, ["features", "label"])


def peak(spark: Any) -> float:
    """The largest resident size, in bytes, that a Python worker of Spark has had.

    Spark keeps workers of their own for DataFrames and for RDDs.
    """
    import pyarrow as pa

    def usage() -> int:
        time.sleep(0.2)  # so that every idle worker gets a task
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def of_rows(batches: Iterator[Any]) -> Iterator[Any]:
        found = usage()
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"bytes": [found] * batch.num_rows})

    frame = spark.range(8, numPartitions=8).mapInArrow(of_rows, "bytes long")
    rdd = spark.sparkContext.parallelize(range(8), 8).map(lambda _: usage())
    return float(max(*(row.bytes for row in frame.collect()), *rdd.collect()))


RUNS = {"keras": run_keras, "kspark": run_kspark, "memory": run_memory}


def main() -> None:
    case = json.loads(sys.argv[1])
    Path(case["result"]).write_text(json.dumps(RUNS[case["engine"]](case)), encoding="utf-8")


if __name__ == "__main__":
    main()
