"""Measure how kspark scores a DataFrame. `benchmarks.inference` starts this as a process.

All ways of scoring run in one session, in turn, so that other load on the machine affects them
alike.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.functions import array_to_vector, predict_batch_udf, vector_to_array
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType

from benchmarks.common import mnist
from benchmarks.common.model import NUM_WORKERS, build_model
from benchmarks.common.runs import answer
from benchmarks.inference.timing import timed

TURNS = 5
BATCH_SIZE = 1024
NARROW_ROWS, NARROW_WIDTH = 1_000_000, 20

Score = Callable[[Any], Any]
"""Function of a DataFrame that adds the column `prediction`."""


def run(case: dict[str, Any]) -> dict[str, float]:
    """Measure the first scoring of a session, and the median of later ones, for every way."""
    from kspark.ml import KerasModel
    from kspark.session import local_session

    with tempfile.TemporaryDirectory(prefix="kspark-benchmark-") as folder:
        spark = local_session(NUM_WORKERS, memory="6g")
        narrow = case["rows"] == "narrow"
        model = narrow_model(case["seed"]) if narrow else build_model(case["seed"])
        rows = spark.read.parquet(write_rows(case, Path(folder)))
        if case["rows"] == "vectors":
            rows = rows.select(array_to_vector("features").alias("features"))
        if not narrow:
            rows = rows.cache()
            rows.count()
        stage = KerasModel(model, inferenceBatchSize=BATCH_SIZE)
        finish = written(folder) if narrow else averaged
        ways: dict[str, Score] = {"kspark": stage.transform}
        first, _ = timed(lambda: finish(ways["kspark"](rows)))
        kind = stage.transform(rows).schema["prediction"].dataType
        width = model.input_shape[1]
        ways |= {
            "noop": with_column(nothing(kind, model.output_shape[1])),
            "products": with_column(products(model, kind), case["rows"]),
        }
        for method in ("predict_on_batch", "predict"):
            ways[method] = with_column(spark_udf(model, method, width, kind), case["rows"])
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(1 + TURNS):  # The first turn starts what each way needs.
            for name, score in ways.items():
                elapsed, _ = timed(lambda score=score: finish(score(rows)))
                if turn:
                    seconds[name].append(elapsed)
        spark.stop()
    return {"first": first, **{name: statistics.median(s) for name, s in seconds.items()}}


def write_rows(case: dict[str, Any], folder: Path) -> str:
    """Write rows of float32 to one Parquet file per worker, and return the path."""
    if case["rows"] == "narrow":
        size = (NARROW_ROWS, NARROW_WIDTH)
        x = np.random.default_rng(case["seed"]).random(size, dtype=np.float32)
    else:
        x = mnist.read(case["data"])[0]
    path = folder / "rows"
    path.mkdir()
    for number, part in enumerate(np.array_split(x, NUM_WORKERS)):
        offsets = np.arange(len(part) + 1, dtype=np.int32) * part.shape[1]
        features = pa.ListArray.from_arrays(pa.array(offsets), pa.array(part.reshape(-1)))
        pq.write_table(pa.table({"features": features}), path / f"{number}.parquet")
    return str(path)


def narrow_model(seed: int) -> keras.Model:
    """A 20-64-64-1 perceptron."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(64, "relu") for _ in range(2)]
    return keras.Sequential(
        [keras.Input((NARROW_WIDTH,)), *layers, keras.layers.Dense(1, "sigmoid")]
    )


def averaged(frame: Any) -> None:
    """Average a prediction, so that every row is scored but none is kept."""
    kind = frame.schema["prediction"].dataType
    value = F.col("prediction")
    frame.agg(F.avg(value[0] if isinstance(kind, ArrayType) else value)).collect()


def written(folder: str) -> Callable[[Any], None]:
    """A function that writes a DataFrame to Parquet."""
    return lambda frame: frame.write.mode("overwrite").parquet(f"{folder}/scored")


def with_column(function: Any, rows: str = "") -> Score:
    """A way of scoring that calls a function of Spark. `rows` is "vectors" if it takes arrays."""
    features = vector_to_array("features", "float32") if rows == "vectors" else F.col("features")
    return lambda frame: frame.withColumn("prediction", function(features))


def nothing(kind: DataType, width: int) -> Any:
    """A function that takes the features and returns zeros of the type of the predictions."""

    def zeros(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for column in columns:
            count = len(column)
            if isinstance(kind, DoubleType):
                yield pa.array(np.zeros(count))
            else:
                offsets = np.arange(count + 1, dtype=np.int32) * width
                yield pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.zeros(count * width)))

    return F.arrow_udf(zeros, kind)


def products(model: keras.Model, kind: DataType) -> Any:
    """A function that multiplies the features with the kernels of the layers, in NumPy alone.

    This is the least that a function can do which uses the model.
    """
    kernels = [w for w in model.get_weights() if w.ndim == 2]

    def multiplied(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for column in columns:
            x = column.flatten().to_numpy().reshape(len(column), -1)
            for kernel in kernels:
                x = np.maximum(x @ kernel, 0)
            values = pa.array(x.reshape(-1).astype(np.float64))
            if isinstance(kind, DoubleType):
                yield values
            else:
                offsets = np.arange(len(column) + 1, dtype=np.int32) * x.shape[1]
                yield pa.ListArray.from_arrays(pa.array(offsets), values)

    return F.arrow_udf(multiplied, kind)


def spark_udf(model: keras.Model, method: str, width: int, kind: DataType) -> Any:
    """Spark's `predict_batch_udf` around a method of the model, as Spark documents it."""
    config, weights = model.to_json(), model.get_weights()

    def make() -> Callable[[np.ndarray], np.ndarray]:
        import keras

        copy = keras.models.model_from_json(config)
        copy.set_weights(weights)
        if method == "predict":
            return lambda x: copy.predict(x, verbose=0)
        return lambda x: copy.predict_on_batch(x)

    result = FloatType() if isinstance(kind, DoubleType) else ArrayType(FloatType())
    return predict_batch_udf(
        make, return_type=result, batch_size=BATCH_SIZE, input_tensor_shapes=[[width]]
    )


if __name__ == "__main__":
    answer(run)
