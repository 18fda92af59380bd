"""Fits of stages over Spark Connect, in a process of their own: `test_ml_connect.py` runs it.

Prints the results as one line of JSON.
"""

import contextlib
import glob
import io
import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import SparkContext, TaskContext
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from kspark import SparkModel, check_cluster
from kspark.cluster.remote import map_frame
from kspark.cluster.spark_job import SparkJob
from kspark.data import spool
from kspark.errors import ClusterError, KSparkError, WorkerError
from kspark.ml import ElephasEstimator, KerasClassifier, KerasModel, KerasRegressor, progress

ROWS = (1, 0, 37, 9)  # smaller than a batch, empty, skewed, a short last batch


def classifier():
    keras.utils.set_random_seed(3)
    layers = [
        keras.Input((3,)),
        keras.layers.Dense(8, "relu"),
        keras.layers.Dropout(0.2, seed=1),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(3, "softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def plain_classifier():
    keras.utils.set_random_seed(3)
    layers = [keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def uneven(spark):
    """Rows in partitions of `ROWS`, the same in every session."""
    kept = [f"(id >= {100 * i} and id < {100 * i + rows})" for i, rows in enumerate(ROWS)]
    features = "array(sin(id), cos(2.0d * id), sin(3.0d * id)) as features"
    rows = spark.range(0, 100 * len(ROWS), 1, len(ROWS)).where(" or ".join(kept))
    return rows.selectExpr("id", features, "cast(id % 3 as int) as label", "id % 4 = 0 as held")


def warm(spark):
    """Whether each worker started with Keras imported."""
    return [worker.warm for worker in check_cluster(spark)]


def fit_uneven(spark):
    """Weights, optimizer state and history of a fit whose order and numbers are repeatable."""
    stage = KerasClassifier(classifier(), epochs=3, batchSize=4, seed=7, validationSplit=0.25)
    fitted = stage.fit(uneven(spark))
    variables = fitted.kerasModel.optimizer.variables
    return {
        "weights": [w.tolist() for w in fitted.kerasModel.get_weights()],
        "state": [keras.ops.convert_to_numpy(v).tolist() for v in variables],
        "history": fitted.history,
        "shards": [worker["shard"] for worker in fitted.summary.workers[0]],
    }


def fit_shuffled(spark):
    """How many shards there are of rows that come out of a shuffle."""
    rows = uneven(spark).groupBy("id").agg(*(F.first(c).alias(c) for c in ("features", "label")))
    stage = KerasClassifier(plain_classifier(), seed=7)
    return len(stage.fit(rows).summary.workers[0])


@keras.saving.register_keras_serializable("connect")
class IdSums(keras.metrics.Metric):
    """Counts rows, and sums the targets and their squares, which no other set of rows has."""

    def __init__(self, name="ids", **kwargs):
        super().__init__(name=name, **kwargs)
        self.sums = self.add_variable((3,), "zeros", name="sums")

    def update_state(self, y_true, y_pred, sample_weight=None):
        ids = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), self.dtype)
        sums = [keras.ops.sum(ids * 0 + 1), keras.ops.sum(ids), keras.ops.sum(ids * ids)]
        self.sums.assign_add(keras.ops.stack(sums))

    def result(self):
        return {"rows": self.sums[0], "ids": self.sums[1], "squares": self.sums[2]}


def id_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[IdSums()])
    return model


@keras.saving.register_keras_serializable("connect")
class RaisesOnWorkers(keras.layers.Layer):
    def call(self, inputs):
        if TaskContext.get() is not None:
            raise ZeroDivisionError("a mistake of the model's")
        return inputs


def one_shard(spark):
    """The largest difference between a fit of one shard and plain Keras, weights and history."""
    rows = uneven(spark)
    x = np.array([r.features for r in rows.collect()], "float32")
    y = np.array([r.label for r in rows.collect()])
    plain = plain_classifier()
    arguments = {"epochs": 3, "batch_size": 8, "shuffle": False, "validation_split": 0.2}
    expected = plain.fit(x, y, verbose=0, **arguments)
    stage = KerasClassifier(
        plain_classifier(),
        epochs=3,
        batchSize=8,
        shuffle=False,
        validationSplit=0.2,
        numWorkers=1,
    )
    fitted = stage.fit(rows)
    ours = fitted.kerasModel.get_weights()
    pairs = zip(ours, plain.get_weights(), strict=True)
    history = [np.abs(np.subtract(v, fitted.history[k])).max() for k, v in expected.history.items()]
    return [float(max(np.abs(a - b).max() for a, b in pairs)), float(max(history))]


def counted(spark):
    """Rows of every epoch, those that validate too; moved to two shards, and left as they are."""
    rows = uneven(spark).withColumn("target", F.col("id").cast("float"))
    stage = KerasRegressor(id_model(), epochs=2, batchSize=4, labelCol="target")
    moved = stage.copy().setParams(numWorkers=2)
    held = stage.copy().setParams(validationIndicatorCol="held")
    return [s.fit(rows).history for s in (stage, moved, held)]


def read_once(spark):
    """Sums of rows that are others whenever they are read."""
    rows = spark.sql("select array(0d, 0d, 0d) as features, rand() as label from range(0, 9, 1, 3)")
    return KerasRegressor(id_model(), epochs=3).fit(rows).history["squares"]


class Stops(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


def continued(spark):
    """The largest difference between a fit and two that follow each other; and an evaluation."""
    whole, parts = plain_classifier(), plain_classifier()
    rows = uneven(spark)
    arguments = {"shuffle": False, "verbose": 0}
    SparkModel(whole, num_workers=1, batch_size=8).fit(rows, epochs=4, **arguments)
    model = SparkModel(parts, num_workers=1, batch_size=8)
    model.fit(rows, epochs=50, callbacks=[Stops()], **arguments)
    model.fit(rows, epochs=2, **arguments)
    pairs = zip(whole.get_weights(), parts.get_weights(), strict=True)
    x = np.array([r.features for r in rows.collect()], "float32")
    y = np.array([r.label for r in rows.collect()])
    difference = max(np.abs(a - b).max() for a, b in pairs)
    return [float(difference), model.evaluate(rows), parts.evaluate(x, y, verbose=0)]


class Interrupts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def refusals(spark):
    """What is said by what cannot work."""
    frame = uneven(spark)
    raising = keras.Sequential([keras.Input((3,)), RaisesOnWorkers(), keras.layers.Dense(1)])
    raising.compile("sgd", "mse")
    work = {
        "mode": lambda: KerasRegressor(id_model(), mode="hogwild").fit(frame),
        "frequency": lambda: KerasRegressor(id_model(), frequency=3).fit(frame),
        "elephas": lambda: ElephasEstimator(id_model(), mode="asynchronous").fit(frame),
        "raises": lambda: KerasRegressor(raising).fit(frame),
        "interrupt": lambda: SparkModel(id_model()).fit(frame, callbacks=[Interrupts()]),
    }
    return {name: told(action) for name, action in work.items()}


def bad_labels(spark):
    """What is said of labels that are no classes."""
    model = plain_classifier()
    model.compile("sgd", "categorical_crossentropy")
    rows = uneven(spark).withColumn("label", F.lit(5))
    return told(lambda: KerasClassifier(model).fit(rows))


def told(action):
    try:
        action()
    except (ClusterError, WorkerError, ValueError, TypeError, KeyboardInterrupt) as error:
        return [type(error).__name__, str(error)]
    return None


def endless(path, index, batches):
    for _ in batches:
        continue
    Path(path).touch()
    while True:
        time.sleep(0.05)
        yield index


def cancelled(spark):
    """Whether a job that would never end does end when it is cancelled."""
    started = Path("started").absolute()
    rows = map_frame(spark.range(0, 1, 1, 1), partial(endless, str(started)))
    job = SparkJob(spark, rows, "endless").start()
    while not started.exists() and not job.finished.is_set():
        time.sleep(0.05)
    running = not job.finished.is_set()
    job.cancel()
    return [running, job.finished.is_set(), told_by(job)]


def told_by(job):
    try:
        job.result()
    except KSparkError as error:
        return str(error)
    return None


def left_behind(spark):
    """What fits could leave, here and at the server, which runs in this process' JVM."""
    context = SparkContext._active_spark_context
    places = spark.range(1).mapInArrow(local_directories, "path string").collect()
    return {
        "threads": [t.name for t in threading.enumerate() if t.name.startswith("kspark")],
        "persisted": context._jsc.getPersistentRDDs().size(),
        "views": [t.name for t in spark.catalog.listTables()],
        "spools": [f for p in places for f in glob.glob(f"{p.path}/kspark-*/*")],
        "settings": spark.conf.get(
            "spark.sql.optimizer.canChangeCachedPlanOutputPartitioning", None
        ),
    }


def local_directories(batches):
    import pyarrow as pa

    for _ in batches:
        continue
    found = os.environ["SPARK_LOCAL_DIRS"].split(",")
    yield pa.RecordBatch.from_arrays([pa.array(found)], names=["path"])


def transformed(spark):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[2.0]])])
    model.compile("sgd", "mse")
    frame = spark.range(5).select("id", F.col("id").cast("double").alias("features"))
    return {r.id: r.prediction for r in KerasModel(model).transform(frame).collect()}


def shown(spark):
    """The line that stays after a block with an action of three tasks.

    The server reports every two seconds.
    """

    def wait(batches):
        time.sleep(1.5)
        yield from batches

    screen = io.StringIO()
    with contextlib.redirect_stdout(screen), progress(spark, verbose=2, title="Count"):
        spark.range(30, numPartitions=3).mapInArrow(wait, "id long").collect()
    return screen.getvalue()


def files(spark):
    """Epochs of a fit on files; whether the rows are in order; the largest difference to Keras."""
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    columns = {"id": np.arange(60), "features": x.tolist(), "label": np.arange(60) % 3}
    Path("rows").mkdir()
    pq.write_table(pa.table(columns), "rows/a.parquet", row_group_size=25)
    model = plain_classifier()
    spark_model = SparkModel(model, num_workers=2)
    history = spark_model.fit("rows", epochs=2, verbose=0).history
    scored = pq.read_table(spark_model.predict("rows/*.parquet", output="scored", verbose=0))
    ids, expected = scored["id"].to_pylist(), model.predict(x, verbose=0)
    difference = np.abs(np.array(scored["prediction"].to_pylist()) - expected).max()
    arrays = SparkModel(model).predict("rows", verbose=0)
    return [len(history["loss"]), ids == list(range(60)), float(difference), arrays.shape]


def spooled(spark):
    """Largest difference of a fit on spooled rows to one on their source; an evaluation; places."""
    frame, models = uneven(spark), [plain_classifier(), plain_classifier()]
    told = []
    with spool(frame) as rows:
        for model, data in zip(models, (frame, rows), strict=True):
            history = SparkModel(model, seed=7).fit(data, epochs=2, verbose=0).history
            told.append([history["loss"], SparkModel(model).evaluate(rows, verbose=0)])
        folders = [folder for _, folder in rows.places]
        there = [os.path.isdir(folder) for folder in folders]
    return [difference_of(*models), told, there, [os.path.exists(folder) for folder in folders]]


def sparse(spark):
    """Largest difference to plain Keras of a fit on sparse vectors; whether they stay sparse."""
    random = np.random.default_rng(0)
    places = [sorted(random.choice(600, 5, replace=False).tolist()) for _ in range(40)]
    vectors = [Vectors.sparse(600, indices, [1.0, 2.0, 3.0, 4.0, 5.0]) for indices in places]
    labels = [i % 2 for i in range(40)]
    frame = spark.createDataFrame(list(zip(vectors, labels, strict=True)), ["features", "label"])
    models = []
    for data in (frame, np.array([vector.toArray() for vector in vectors], "float32")):
        keras.utils.set_random_seed(1)
        models.append(keras.Sequential([keras.Input((600,)), keras.layers.Dense(1)]))
        models[-1].compile("sgd", "mse")
        if data is frame:
            model = SparkModel(models[-1], num_workers=1, batch_size=8)
            model.fit(frame, shuffle=False, verbose=0)
        else:
            models[-1].fit(data, np.array(labels), batch_size=8, shuffle=False, verbose=0)
    with spool(frame, num_workers=1) as rows:
        return [difference_of(*models), rows.nbytes, 40 * 600 * 4]


def difference_of(left, right):
    pairs = zip(left.get_weights(), right.get_weights(), strict=True)
    return float(max(np.abs(a - b).max() for a, b in pairs))


def numbered(worker, num_workers):
    """Rows with their numbers as targets: 6 for worker 0, and 5 for worker 1."""
    ids = np.arange(worker, 11, 2)
    for start in range(0, len(ids), 2):
        targets = ids[start : start + 2].astype("float32")
        yield np.ones((len(targets), 3), "float32"), targets


def streamed(spark):
    """Sums of an epoch of rows that a function makes; of an evaluation; and what is predicted."""
    spark_model = SparkModel(id_model(), num_workers=2)
    history = spark_model.fit(numbered, epochs=2, validation_data=numbered, verbose=0).history
    sums = spark_model.evaluate(numbered, verbose=0, return_dict=True)
    counts = [worker["num_examples"] for worker in spark_model.last_fit.workers[-1]]
    return [history, sums, spark_model.predict(numbered, verbose=0).shape, counts]


def main():
    # `KSPARK_WARM` is in the environment, as on a cluster with `spark.executorEnv.KSPARK_WARM`.
    builder = SparkSession.builder.remote("local[2]")
    spark = builder.config("spark.python.daemon.module", "kspark.cluster.daemon").getOrCreate()
    work = (warm, transformed, fit_uneven, fit_shuffled, one_shard, counted, read_once, continued)
    found = {}
    work += (files, spooled, sparse, streamed, shown, refusals, cancelled, left_behind, bad_labels)
    for part in work:
        started = time.monotonic()
        found[part.__name__] = part(spark)
        sys.stderr.write(f"{part.__name__}: {time.monotonic() - started:.1f} s\n")
    print("FOUND", json.dumps(found))


if __name__ == "__main__":
    main()
