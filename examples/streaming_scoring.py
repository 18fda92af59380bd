"""Structured Streaming: files are scored as they arrive, each of them once.

    python streaming_scoring.py

A classifier learns from a table. Then measurements arrive as files; every run
of the stream scores those that are new, and adds them to a table of results.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from kspark.ml import KerasClassifier
from kspark.session import local_session

import keras
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import StandardScaler
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.datasets import load_wine

SCHEMA = "id long, measured array<double>, label double"


def read_wines(spark: SparkSession) -> DataFrame:
    """178 wines of three kinds, 13 measurements each."""
    measured, kinds = load_wine(return_X_y=True)
    rows = [
        (i, x.tolist(), float(kind))
        for i, (x, kind) in enumerate(zip(measured, kinds, strict=True))
    ]
    return spark.createDataFrame(rows, SCHEMA).repartition(2, "id")


def with_features(rows: DataFrame) -> DataFrame:
    return rows.withColumn("measurements", array_to_vector(F.col("measured")))


def fit(rows: DataFrame) -> PipelineModel:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((13,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    scaler = StandardScaler(inputCol="measurements", outputCol="features", withMean=True)
    classifier = KerasClassifier(model, epochs=15, batchSize=8, numWorkers=2, seed=0)
    return Pipeline(stages=[scaler, classifier]).fit(with_features(rows))


def score_new_files(spark: SparkSession, fitted: PipelineModel, folder: Path) -> list[int]:
    """Score what has arrived since the last call. Returns the sizes of the batches."""
    sizes = []

    def save(batch: DataFrame, number: int) -> None:
        results = batch.select("id", "label", "prediction").cache()
        sizes.append(results.count())
        results.write.mode("append").parquet(f"{folder}/results")
        results.unpersist()

    arriving = spark.readStream.schema(SCHEMA).json(f"{folder}/incoming")
    query = (
        fitted.transform(with_features(arriving))
        .writeStream.foreachBatch(save)
        # Which files are done is noted here, so the next run goes on with the others.
        .option("checkpointLocation", f"{folder}/checkpoint")
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    return sizes


def main(spark: SparkSession | None = None) -> dict[str, float]:
    """Train, let files arrive twice, score them. Returns what it found.

    Args:
        spark: `SparkSession`; one on this machine by default.
    """
    spark = spark or local_session()
    train, first, second = read_wines(spark).cache().randomSplit([0.6, 0.2, 0.2], seed=1)
    fitted = fit(train)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scored = []
        for arrived in (first, second):
            arrived.write.mode("append").json(f"{folder}/incoming")
            scored.append(sum(score_new_files(spark, fitted, folder)))
        results = spark.read.parquet(f"{folder}/results")
        right = results.filter("label = prediction").count()
        num_arrived = first.count() + second.count()
        found = {
            "arrived": num_arrived,
            "scored_at_first": scored[0],
            "scored_then": scored[1],
            "different_ids": results.select("id").distinct().count(),
            "accuracy": right / num_arrived,
        }
    print(found)
    return found


if __name__ == "__main__":
    main()
