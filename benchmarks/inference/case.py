"""Measure one pipeline of Keras or kspark. `benchmarks.inference` starts this as a process."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from benchmarks.common import mnist
from benchmarks.common.model import NUM_WORKERS, build_model
from benchmarks.common.runs import answer
from benchmarks.inference.timing import BATCH_SIZE, first_and_warm, timed


def run_keras(case: dict[str, Any]) -> dict[str, float]:
    x, y, *_ = mnist.read(case["data"])
    model = build_model(case["seed"])
    fit, _ = timed(lambda: model.fit(x, y, BATCH_SIZE, case["epochs"], verbose=0))
    again = build_model(case["seed"])
    refit, _ = timed(lambda: again.fit(x, y, BATCH_SIZE, case["epochs"], verbose=0))
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
    stage = classifier(build_model(case["seed"]), case, case["epochs"])
    fit, fitted = timed(lambda: stage.fit(rows))
    refit, _ = timed(lambda: stage.fit(rows))
    predicting = first_and_warm(lambda: fitted.transform(rows).agg({"prediction": "avg"}).collect())
    spark.stop()
    return {"frame": build, "fit": fit, "refit": refit, **predicting}


def classifier(model: keras.Model, case: dict[str, Any], epochs: int) -> Any:
    """The pipeline stage that is measured."""
    from kspark.ml import KerasClassifier

    return KerasClassifier(
        model, epochs=epochs, batchSize=BATCH_SIZE, numWorkers=NUM_WORKERS, seed=case["seed"]
    )


def run_memory(case: dict[str, Any]) -> dict[str, float]:
    """Measure the largest resident bytes of a Python worker in a fit, and in a transform."""
    from kspark.session import local_session

    def rows(spark: Any) -> Any:
        ids = spark.range(0, NUM_WORKERS * case["rows"], numPartitions=NUM_WORKERS)
        return ids.mapInArrow(random_rows, "features array<float>, label int")

    spark = local_session(NUM_WORKERS, memory="6g")
    fitted = classifier(build_model(case["seed"]), case, 1).fit(rows(spark))
    fit = peak(spark)
    spark.stop()
    spark = local_session(NUM_WORKERS, memory="6g")  # A new session starts new Python workers.
    fitted.transform(rows(spark)).agg({"prediction": "avg"}).collect()
    transform = peak(spark)
    spark.stop()
    return {"fit": fit, "transform": transform}


def random_rows(batches: Iterator[Any]) -> Iterator[Any]:
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
    """The largest resident size, in bytes, that a Python worker of Spark has had so far.

    Spark has separate workers for DataFrames and for RDDs, so that both are asked.
    """
    import pyarrow as pa

    def usage() -> int:
        time.sleep(0.2)  # While this task runs, the others go to other workers.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def of_rows(batches: Iterator[Any]) -> Iterator[Any]:
        peak_bytes = usage()
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"bytes": [peak_bytes] * batch.num_rows})

    frame = spark.range(8, numPartitions=8).mapInArrow(of_rows, "bytes long")
    rdd = spark.sparkContext.parallelize(range(8), 8).map(lambda _: usage())
    return float(max(*(row.bytes for row in frame.collect()), *rdd.collect()))


def main() -> None:
    engines = {"keras": run_keras, "kspark": run_kspark, "memory": run_memory}
    answer(lambda case: engines[case["engine"]](case))


if __name__ == "__main__":
    main()
