"""Evaluate and predict. The data is read once, and no state is kept on the executors."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from kspark.adapters import Examples
from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.cluster.failures import UNFIT_LABELS, worker_error
from kspark.cluster.slots import threads_per_task
from kspark.cluster.spark_job import Watch
from kspark.errors import Failure
from kspark.job.collecting import checked
from kspark.job.progress import CallProgress
from kspark.job.row_counts import row_counts
from kspark.job.stored import collect_examples
from kspark.replica import ReplicaSpec
from kspark.worker import inference as inference_worker
from kspark.worker.inference import InferenceTask
from kspark.worker.tasks import ShardResult


def evaluate(
    spark: SparkSession,
    spec: ReplicaSpec,
    examples: Examples,
    batch_size: int,
    progress: CallProgress | None = None,
) -> list[ShardResult]:
    """Compute the metric states of a model.

    Args:
        spark: `SparkSession`.
        spec: `ReplicaSpec`.
        examples: `Examples` with labels.
        batch_size: Integer.
        progress: `CallProgress` that shows how far the job has come. Defaults to `None`.

    Returns:
        List of one `ShardResult` per partition with examples, in their order.

    Raises:
        ValueError: If there are no examples, or if labels do not fit the loss.
        WorkerError: If a replica failed.
    """
    key, threads = uuid.uuid4().hex, threads_per_task(spark)
    shared = engine_of(spark).share(spec)
    try:
        with watching(spark, examples, progress) as (watch, counts):
            task = InferenceTask(key, batch_size, threads, alone=examples.is_single, counts=counts)
            shipped = ship(inference_worker.evaluate_chunks, task, shared=(shared,))
            found = collect_examples(spark, examples, shipped, "kspark: evaluate", watch)
    finally:
        shared.destroy()
        examples.close()
    results = checked(with_fitting_labels(found))
    if not results:
        raise examples.no_rows("x")
    return results


def with_fitting_labels(results: list[Any]) -> list[Any]:
    """Return the results of an evaluation after checking that the labels fit the loss.

    Raises:
        ValueError: If the labels of a partition do not, as at the beginning of a fit.
    """
    for result in results:
        if isinstance(result, Failure) and result.kind == UNFIT_LABELS:
            raise ValueError(result.message)
    return results


def predict(
    spark: SparkSession,
    spec: ReplicaSpec,
    examples: Examples,
    batch_size: int,
    progress: CallProgress | None = None,
) -> list[list[np.ndarray]]:
    """Compute predictions in the order of the examples.

    Args:
        spark: `SparkSession`.
        spec: `ReplicaSpec`.
        examples: `Examples`.
        batch_size: Integer.
        progress: `CallProgress` that shows how far the job has come. Defaults to `None`.

    Returns:
        List of chunks of rows, each a list of one array per output of the model.

    Raises:
        WorkerError: If a replica failed.
    """
    key, threads = uuid.uuid4().hex, threads_per_task(spark)
    shared = engine_of(spark).share(spec)
    results: list[Any]
    try:
        with watching(spark, examples, progress) as (watch, counts):
            task = InferenceTask(key, batch_size, threads, counts=counts)
            shipped = ship(inference_worker.predict_chunks, task, shared=(shared,))
            results = collect_examples(spark, examples, shipped, "kspark: predict", watch)
    finally:
        shared.destroy()
        examples.close()
    for result in results:
        if isinstance(result, Failure):
            raise worker_error(result)
    return [arrays for _, arrays in results]


@contextmanager
def watching(
    spark: SparkSession, examples: Examples, progress: CallProgress | None
) -> Iterator[tuple[Watch | None, str]]:
    """Show how far the job of a call has come, inside the block.

    Yields:
        Tuple of the `Watch` of the job, and the folder in which its tasks count their rows.
    """
    if progress is None:
        yield None, ""
        return
    with row_counts(spark, progress.display.moves) as counts:
        progress.begin(examples.num_examples, None if counts is None else counts.read)
        yield progress.watch_rows, "" if counts is None else counts.folder
