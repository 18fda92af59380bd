"""What works over Spark Connect, front by front: `test_connect_fronts.py` runs this program.

It starts a server in a process of its own, with the Python in `KSPARK_SERVER_PYTHON`, and is only
a client of it, as on a cluster. At the end it ends the server in the middle of a fit. With the
argument `huge`, it only trains a model that no message can hold; with `restarted`, it only starts
the server anew in the middle of a fit. Prints the results as one line of JSON.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from pyspark.errors import PySparkException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder, TrainValidationSplit
from pyspark.sql import SparkSession
from pyspark.sql.connect.client.retries import DefaultPolicy

from kspark import SparkModel
from kspark.cluster import uploading
from kspark.data import spool
from kspark.errors import KSparkError
from kspark.ml import KerasClassificationModel, KerasClassifier, KerasModel

ROWS = 60


def rows():
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("float32")
    return x, np.arange(ROWS) % 3


def classifier():
    keras.utils.set_random_seed(3)
    layers = [keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def frame_of(spark):
    x, y = rows()
    return spark.createDataFrame(pd.DataFrame({"features": x.tolist(), "label": y}))


def difference(left, right):
    pairs = zip(left.get_weights(), right.get_weights(), strict=True)
    return float(max(np.abs(a - b).max() for a, b in pairs))


def arrays(spark):
    """Differences of a fit, an evaluation and predictions on arrays to plain Keras."""
    (x, y), ours, plain = rows(), classifier(), classifier()
    arguments = {"epochs": 2, "batch_size": 8, "shuffle": False, "validation_split": 0.2}
    expected = plain.fit(x, y, verbose=0, **arguments).history
    history = SparkModel(ours, num_workers=1).fit(x, y, verbose=0, **arguments).history
    spark_model = SparkModel(ours, num_workers=3)
    predicted = spark_model.predict(x, verbose=0)
    scores = [spark_model.evaluate(x, y, verbose=0), ours.evaluate(x, y, verbose=0)]
    return [
        difference(ours, plain),
        float(max(np.abs(np.subtract(history[k], v)).max() for k, v in expected.items())),
        float(np.abs(predicted - ours.predict(x, verbose=0)).max()),
        float(np.abs(np.subtract(*scores)).max()),
        shards_of(x, y),
    ]


def shards_of(x, y):
    """Numbers of rows of the shards of a fit on arrays."""
    spark_model = SparkModel(classifier(), num_workers=4)
    spark_model.fit(x[:58], y[:58], verbose=0)
    return [worker["num_examples"] for worker in spark_model.last_fit.workers[-1]]


def tables(spark):
    """Differences of fits on a pandas DataFrame, a generator and spooled rows to one on arrays."""
    x, y = rows()
    table = pd.DataFrame(x, columns=list("abc")).assign(label=y)
    batches = ((x[i : i + 8], y[i : i + 8]) for i in range(0, ROWS, 8))
    models = [classifier() for _ in range(4)]
    arguments = {"shuffle": False, "verbose": 0}
    fits = [SparkModel(m, num_workers=1, batch_size=8) for m in models]
    fits[0].fit(x, y, **arguments)
    fits[1].fit(table, features_col=list("abc"), **arguments)
    fits[2].fit(batches, **arguments)
    with spool(x, y, num_workers=1) as spooled:
        fits[3].fit(spooled, **arguments)
    return [difference(models[0], other) for other in models[1:]]


def stages(spark):
    """Predictions of a fitted stage, and of that stage saved, replaced and loaded; its weights."""
    frame = frame_of(spark)
    fitted = KerasClassifier(classifier(), numWorkers=1).fit(frame)
    KerasClassifier(classifier(), preprocess=keras.layers.Rescaling(2.0)).save("stage")
    fitted.write().overwrite().save("stage")
    loaded = KerasClassificationModel.load("stage")
    try:
        fitted.save("stage")
    except PySparkException as error:
        refusal = type(error).__name__
    classic = KerasClassificationModel.load(os.environ["KSPARK_CLASSIC_STAGE"])
    own, others = predictions(fitted, frame), predictions(loaded, frame)
    weights = [array.tolist() for array in fitted.kerasModel.get_weights()]
    return [own == others, refusal, difference(classic._model().model, classifier()), weights]


def predictions(stage, frame):
    return [row.prediction for row in stage.transform(frame).select("prediction").collect()]


def pipelines(spark):
    """Whether a saved and loaded pipeline predicts as before."""
    x, y = rows()
    frame = spark.createDataFrame(
        pd.DataFrame(x.astype(float), columns=list("abc")).assign(label=y)
    )
    assembler = VectorAssembler(inputCols=list("abc"), outputCol="features")
    fitted = Pipeline(stages=[assembler, KerasClassifier(classifier(), numWorkers=1)]).fit(frame)
    fitted.write().overwrite().save("pipeline")
    loaded = PipelineModel.load("pipeline")
    return predictions(fitted, frame) == predictions(loaded, frame)


def tuners(spark):
    """Numbers of metrics that tuners found; whether a saved best model predicts alike."""
    stage, frame = KerasClassifier(classifier(), numWorkers=1), frame_of(spark)
    grid = ParamGridBuilder().addGrid(stage.epochs, [1, 2]).build()
    metric = MulticlassClassificationEvaluator()
    crossed = CrossValidator(
        estimator=stage, estimatorParamMaps=grid, evaluator=metric, numFolds=2
    ).fit(frame)
    split = TrainValidationSplit(estimator=stage, estimatorParamMaps=grid, evaluator=metric).fit(
        frame
    )
    crossed.write().overwrite().save("crossed")
    best = type(crossed).load("crossed").bestModel
    same = predictions(best, frame) == predictions(crossed.bestModel, frame)
    return [len(crossed.avgMetrics), len(split.validationMetrics), same]


def udfs(spark):
    """Largest difference of a UDF's predictions to Keras."""
    x, _ = rows()
    model = classifier()
    KerasModel(model, featuresCol="features").asUDF("score")
    frame_of(spark).createOrReplaceTempView("rows")
    found = spark.sql("SELECT score(features) AS p FROM rows").collect()
    return float(np.abs(np.array([row.p for row in found]) - model.predict(x, verbose=0)).max())


def streams(spark):
    """The number of rows that a stream scored, and the largest difference to Keras."""
    frame = frame_of(spark)
    frame.write.mode("overwrite").parquet("rows")
    stream = spark.readStream.schema(frame.schema).parquet("rows")
    scored = KerasModel(classifier(), featuresCol="features").transform(stream)
    writer = scored.select("features", "prediction").writeStream.trigger(availableNow=True)
    query = writer.option("checkpointLocation", "state").format("parquet").start("scored")
    query.awaitTermination(120)
    found = spark.read.parquet("scored").collect()
    expected = classifier().predict(np.array([row.features for row in found]), verbose=0)
    return [len(found), float(np.abs(np.array([r.prediction for r in found]) - expected).max())]


def large(spark):
    """Differences of a fit, an evaluation and a transform with a model that is sent as files."""
    (x, y), frame, models = rows(), frame_of(spark), [classifier(), classifier()]
    limit, found, uploads = uploading.LARGEST_ENCLOSED, [], []
    upload = uploading.upload
    uploading.upload = lambda *given: uploads.append(1) or upload(*given)
    for model, uploading.LARGEST_ENCLOSED in zip(models, (limit, 1000), strict=True):
        spark_model = SparkModel(model, num_workers=2, seed=1)
        spark_model.fit(x, y, epochs=2, verbose=0)
        scored = predictions(KerasModel(model, featuresCol="features"), frame)
        found.append([spark_model.evaluate(x, y, verbose=0), np.round(scored, 6).tolist()])
    uploading.LARGEST_ENCLOSED, uploading.upload = limit, upload
    return [difference(*models), found[0] == found[1], len(uploads)]


def huge(spark):
    """The size of a model; the difference of a step to plain Keras, and of predictions."""
    x, _ = rows()
    x, y, models = x[:8], x[:8].sum(axis=1), []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        dense = keras.layers.Dense
        layers = [keras.Input((3,)), dense(2000, "tanh"), dense(20000, "tanh"), dense(1)]
        models.append(keras.Sequential(layers))
        models[-1].compile("sgd", "mse")
    plain, ours = models
    plain.fit(x, y, batch_size=8, verbose=0)
    spark_model = SparkModel(ours, num_workers=1, batch_size=8)
    spark_model.fit(x, y, verbose=0)
    predicted = spark_model.predict(x, verbose=0)
    apart = np.abs(predicted - plain.predict(x, verbose=0)).max()
    return [ours.count_params(), difference(ours, plain), float(apart)]


def refused(spark):
    """What is said of what does not work."""
    x, y = rows()
    told = {}
    spark.conf.set("spark.sql.session.localRelationSizeLimit", "500")
    work = {
        "size": lambda: SparkModel(classifier()).fit(x, y, verbose=0),
        "path": lambda: SparkModel(classifier()).save("hdfs://host/model.keras"),
        "checkpoint": lambda: SparkModel(classifier()).fit(
            frame_of(spark), checkpoint="hdfs://host/folder", verbose=0
        ),
    }
    for name, action in work.items():
        try:
            action()
        except (KSparkError, TypeError, ValueError, OSError) as error:
            told[name] = [type(error).__name__, str(error)]
        spark.conf.unset("spark.sql.session.localRelationSizeLimit")
    return told


class EndsServer(keras.callbacks.Callback):
    def __init__(self, server):
        super().__init__()
        self.server = server

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            self.server.kill()
            self.server.wait()


def dropped(spark, server):
    """What is said when the server ends during a fit, and by the next fit."""
    frame, model, told = frame_of(spark), classifier(), []
    # PySpark's own policy tries again for ten minutes.
    spark.client.set_retry_policies([DefaultPolicy(max_retries=2, initial_backoff=100)])
    for callbacks in ([EndsServer(server)], []):
        try:
            SparkModel(model, num_workers=1).fit(frame, epochs=5, verbose=0, callbacks=callbacks)
        except KSparkError as error:
            told.append([type(error).__name__, str(error)])
    return told


class RestartsServer(EndsServer):
    def __init__(self, server, port):
        super().__init__(server)
        self.port = port

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if epoch == 1:
            self.server, _ = start_server(self.port)


def restarted(spark, server, port):
    """What is said when the server starts anew during a fit, and what a new session can do."""
    frame, model = frame_of(spark), classifier()
    restarts = RestartsServer(server, port)
    try:
        began = time.monotonic()
        SparkModel(model, num_workers=1).fit(frame, epochs=5, verbose=0, callbacks=[restarts])
    except KSparkError as error:
        told = [type(error).__name__, str(error), time.monotonic() - began]
    try:
        spark.stop()
        again = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").create()
        history = SparkModel(model, num_workers=1).fit(frame_of(again), epochs=3, verbose=0)
        again.stop()
    finally:
        restarts.server.kill()
    return told, history.history["loss"]


def start_server(*port):
    """Start a server; return its process and its port."""
    program = Path(__file__).with_name("connect_server.py")
    command = [os.environ["KSPARK_SERVER_PYTHON"], program, *port]
    # A client notes in its environment that it is one.
    own = ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_LOCAL_REMOTE")
    server = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in own},
    )
    return server, next(line for line in server.stdout if "PORT" in line).split()[-1]


def main():
    server, port = start_server()
    try:
        spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
        found = {}
        parts = [arrays, tables, stages, pipelines, tuners, udfs, streams, large, refused]
        for part in {"huge": [huge], "restarted": []}.get(sys.argv[-1], parts):
            started = time.monotonic()
            found[part.__name__] = part(spark)
            sys.stderr.write(f"{part.__name__}: {time.monotonic() - started:.1f} s\n")
        if "restarted" in sys.argv:
            found["restarted"] = restarted(spark, server, port)
        elif "huge" not in sys.argv:
            found["dropped"] = dropped(spark, server)
    finally:
        server.kill()
    print("FOUND", json.dumps(found))


if __name__ == "__main__":
    main()
