"""Evaluate and predict: the data is read once, nothing is kept."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, DataType, DoubleType, StructField, StructType

from kspark.adapters import Columns, Examples
from kspark.adapters.dataframe import chosen_column
from kspark.adapters.frames import plan_frame
from kspark.bootstrap import ship
from kspark.errors import Failure, invalid
from kspark.job.cluster import threads_per_task
from kspark.job.fit import checked
from kspark.job.spark_job import run, worker_error
from kspark.replica import ReplicaSpec
from kspark.worker import inference as inference_worker
from kspark.worker.inference import InferenceTask
from kspark.worker.results import RoundResult


def evaluate(
    spark: SparkSession, spec: ReplicaSpec, examples: Examples, batch_size: int
) -> list[RoundResult]:
    """Metric states of a model, one per partition with examples, in their order.

    Raises:
        ValueError: If there are no examples.
        WorkerError: If a replica failed.
    """
    task = InferenceTask(uuid.uuid4().hex, batch_size, threads_per_task(spark))
    broadcast = spark.sparkContext.broadcast(spec)
    try:
        shipped = ship(inference_worker.evaluate_chunks, task, shared=(broadcast,))
        results = checked(run(spark, examples.map_chunks(shipped), "kspark: evaluate"))
    finally:
        broadcast.destroy()
    if not results:
        raise invalid("x", "a data set with at least one example", "0 examples")
    return results


def predict(
    spark: SparkSession, spec: ReplicaSpec, examples: Examples, batch_size: int
) -> list[list[np.ndarray]]:
    """Predictions in the order of the examples: one array per output, per chunk of rows.

    Raises:
        WorkerError: If a replica failed.
    """
    task = InferenceTask(uuid.uuid4().hex, batch_size, threads_per_task(spark))
    broadcast = spark.sparkContext.broadcast(spec)
    try:
        shipped = ship(inference_worker.predict_chunks, task, shared=(broadcast,))
        results: list[Any] = run(spark, examples.map_chunks(shipped), "kspark: predict")
    finally:
        broadcast.destroy()
    for result in results:
        if isinstance(result, Failure):
            raise worker_error(result)
    return [arrays for _, arrays in results]


def predict_frame(
    spark: SparkSession,
    spec: ReplicaSpec,
    frame: DataFrame,
    columns: Columns,
    outputs: dict[str, tuple[int | None, ...]],
    batch_size: int,
) -> DataFrame:
    """A lazy DataFrame with the model's outputs beside the columns of each row.

    Args:
        spark: `SparkSession`.
        spec: `ReplicaSpec`.
        frame: DataFrame to read; it is read once, so every row keeps its own prediction.
        columns: `Columns` that name the features.
        outputs: Mapping from name of a new column to the output's shape per example.
        batch_size: Integer.

    Raises:
        ValueError: If a new column's name is taken, or a feature column is missing.
    """
    taken = [name for name in outputs if name in frame.columns]
    if taken:
        raise invalid("output_col", "the name of a new column", taken[0])
    plan = plan_frame(columns, spec.inputs)
    kept = [chosen_column(frame, name, name) for name in frame.columns]
    features = [chosen_column(frame, name, f"kspark_{i}") for i, name in enumerate(plan.names)]
    added = [StructField(name, output_type(shape)) for name, shape in outputs.items()]
    schema = StructType([*frame.schema.fields, *added])
    task = InferenceTask(spec.digest + uuid.uuid4().hex, batch_size, threads_per_task(spark))
    broadcast = spark.sparkContext.broadcast(spec)
    shipped = ship(
        inference_worker.predict_batches, task, plan, schema.fieldNames(), shared=(broadcast,)
    )
    return frame.select(*kept, *features).mapInArrow(shipped, schema)


def output_type(shape: tuple[int | None, ...]) -> DataType:
    """The column type of an output: double, or (nested) arrays of it."""
    kind: DataType = DoubleType()
    for _ in () if shape == (1,) else shape:
        kind = ArrayType(kind)
    return kind
