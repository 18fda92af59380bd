"""Evaluation and prediction in a Spark task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from kspark.adapters.columns import to_numpy
from kspark.adapters.conform import Place
from kspark.adapters.feeds import FramePlan
from kspark.cluster.failures import UnfitLabelsError
from kspark.errors import Failure, invalid
from kspark.replica import Replica, ReplicaSpec
from kspark.replica.building import build
from kspark.shards import TEXT, Chunk, LabelStats, Shard, ShardHandle, StoredArray, Window
from kspark.worker.scores import Scores
from kspark.worker.state import replica_for
from kspark.worker.tasks import Result, ShardResult, guarded, read_to_end

MAX_PREDICTORS = 4

_predictors: dict[str, Replica] = {}


@dataclass(frozen=True)
class InferenceTask:
    """An evaluation or prediction.

    Attributes:
        key: String; tasks of one key share a replica in a process.
        batch_size: Integer.
        threads: Integer, threads a replica may use.
        num_train: Mapping from shard to the rows to skip at its start.
    """

    key: str
    batch_size: int
    threads: int
    num_train: dict[int, int] = field(default_factory=dict)


def evaluate_shards(
    task: InferenceTask,
    spec: ReplicaSpec,
    vector: np.ndarray,
    index: int,
    handles: Iterable[bytes],
) -> Iterator[Result]:
    """Metric state of the shards of one partition, over their rows from `num_train` on."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        yield guarded(
            handle.index, partial(evaluate_shard, task, spec, vector, handle), handle.host
        )


def evaluate_shard(
    task: InferenceTask, spec: ReplicaSpec, vector: np.ndarray, handle: ShardHandle
) -> ShardResult:
    """Metric state of one shard."""
    start = task.num_train.get(handle.index, 0)
    count = handle.num_examples - start
    if count <= 0:
        return ShardResult(handle.index, 0)
    windows = Shard.open(handle).windows(task.batch_size, start=start)
    return evaluate_windows(task, spec, vector, handle.index, windows)


def evaluate_windows(
    task: InferenceTask,
    spec: ReplicaSpec,
    vector: np.ndarray | None,
    shard: int,
    windows: Iterable[Window],
) -> ShardResult:
    """Metric state over some windows; without a vector the model's own weights are used."""
    replica = replica_for(spec, task.key, task.threads)
    if vector is not None:
        replica.set_vector(vector)
    replica.reset_metrics()
    num_examples = 0
    y: tuple[StoredArray, ...] = ()
    for window in windows:
        if not num_examples:
            replica.check_summable(window, task.batch_size)
            y = label_arrays(window)
        replica.evaluate(window, task.batch_size)
        num_examples += window.num_examples
    metrics = replica.metric_state() if num_examples else []
    return ShardResult(shard, num_examples, metrics=metrics, y=y)


def label_arrays(window: Window) -> tuple[StoredArray, ...]:
    """What the labels of a window look like."""
    return tuple(
        StoredArray(f"y{i}", TEXT if a.dtype == object else a.dtype.name, a.shape[1:], "", 0)
        for i, a in enumerate(window.y)
    )


def evaluate_chunks(
    task: InferenceTask, spec: ReplicaSpec, index: int, chunks: Iterator[Chunk]
) -> Iterator[Result]:
    """Metric state of one partition that is read once."""

    def windows() -> Iterator[Window]:
        for chunk in chunks:
            window = chunk.window()
            check_window(replica_for(spec, task.key, task.threads), window)
            yield window

    yield guarded(index, lambda: evaluate_windows(task, spec, None, index, windows()))
    read_to_end(chunks)


def check_window(replica: Replica, window: Window) -> None:
    """Refuse labels that do not fit the loss, as a fit does before it begins.

    Raises:
        UnfitLabelsError: If they do not.
    """
    from kspark.replica.labels import check_facts  # imports Keras, whose backend is chosen by now

    stats = [None if a.dtype == object else LabelStats.of(a) for a in window.y]
    try:
        check_facts(replica.model, label_arrays(window), stats)
    except ValueError as error:
        raise UnfitLabelsError(str(error)) from error


def predict_chunks(
    task: InferenceTask, spec: ReplicaSpec, index: int, chunks: Iterator[Chunk]
) -> Iterator[tuple[int, list[np.ndarray]] | Failure]:
    """Predictions of one partition in its own order: (partition, one array per output).

    The first failure is the last result.
    """

    def predict_next() -> tuple[int, list[np.ndarray]] | None:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        replica = replica_for(spec, task.key, task.threads)
        return index, replica.predict(chunk.window(), task.batch_size)

    while (result := guarded(index, predict_next)) is not None:
        yield result
        if isinstance(result, Failure):
            read_to_end(chunks)
            return


def predict_batches(
    task: InferenceTask,
    plan: FramePlan,
    positions: list[int],
    num_kept: int,
    names: list[str],
    scores: Scores,
    spec: ReplicaSpec,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Record batches with more columns, made of the model's outputs, in one pass.

    Args:
        task: `InferenceTask`.
        plan: `FramePlan`.
        positions: List of integers, where in a batch the columns of `plan` are.
        num_kept: Integer, how many columns are kept as they are, the first ones.
        names: Names of the columns to yield: those that are kept, then those of `scores`.
        scores: `Scores`, which makes columns of the outputs.
        spec: `ReplicaSpec`.
        batches: Record batches.
    """
    first = 0
    for batch in batches:
        features = [batch.column(position) for position in positions]
        outputs = predict_rows(task, plan, spec, features, first)
        first += batch.num_rows
        if outputs:
            kept = batch.columns[:num_kept]
            yield pa.RecordBatch.from_arrays([*kept, *scores.columns(outputs)], names=names)


def predict_columns(
    task: InferenceTask,
    plan: FramePlan,
    names: list[str],
    scores: Scores,
    spec: ReplicaSpec,
    batches: Iterator[tuple[pa.Array, ...]],
) -> Iterator[pa.StructArray]:
    """The scores of some columns, batch by batch.

    Args:
        task: `InferenceTask`.
        plan: `FramePlan`.
        names: Names of the columns of `scores`.
        scores: `Scores`, which makes columns of the outputs.
        spec: `ReplicaSpec`.
        batches: Tuples of the columns of `plan`, in its order.
    """
    first = 0
    for columns in batches:
        outputs = predict_rows(task, plan, spec, list(columns), first)
        first += len(columns[0])
        if outputs:
            yield pa.StructArray.from_arrays(scores.columns(outputs), names=names)


def predict_last(
    task: InferenceTask,
    plan: FramePlan,
    scores: Scores,
    spec: ReplicaSpec,
    batches: Iterator[tuple[pa.Array, ...]],
) -> Iterator[pa.Array]:
    """As `predict_columns`, the last of the scores' columns alone.

    Raises:
        ValueError: If a function of SQL was called with another number of columns.
    """
    first = 0
    for columns in batches:
        if len(columns) != len(plan.names):
            raise invalid("columns", f"{len(plan.names)}: {plan.names}", len(columns))
        outputs = predict_rows(task, plan, spec, list(columns), first)
        first += len(columns[0])
        if outputs:
            yield scores.columns(outputs)[-1]


def predict_rows(
    task: InferenceTask,
    plan: FramePlan,
    spec: ReplicaSpec,
    columns: list[pa.Array],
    first_row: int = 0,
) -> list[np.ndarray]:
    """One array per output for the rows of some columns, those of `plan`; none for no rows."""
    replica = predictor_for(spec, task.key, task.threads)
    features = pa.RecordBatch.from_arrays(columns, names=plan.names)
    chunks = plan.chunks(features, None, first_row)
    parts = [replica.predict(chunk.window(), task.batch_size) for chunk in chunks]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def predict_series(
    task: InferenceTask, plan: FramePlan, scores: Scores, spec: ReplicaSpec, *series: Any
) -> Any:
    """The last of the scores' columns as a pandas series.

    Args:
        task: `InferenceTask`.
        plan: `FramePlan`.
        scores: `Scores`, which makes columns of the outputs.
        spec: `ReplicaSpec`.
        *series: One pandas series per column of `plan`, of the same rows.
    """
    if len(series) != len(plan.names):
        raise invalid("columns", f"{len(plan.names)}: {plan.names}", len(series))
    found = {n: series_array(n, s) for n, s in zip(plan.names, series, strict=True)}
    inputs = [
        feed.array([found[n] for n in feed.names], plan.floatx, Place(feed.title))
        for feed in plan.x
    ]
    replica = predictor_for(spec, task.key, task.threads)
    outputs = replica.predict(Chunk(inputs).window(), task.batch_size)
    return scores.columns(outputs)[-1].to_pandas()


def series_array(name: str, series: Any) -> np.ndarray:
    """The values of a column as an array whose first axis is the row.

    Raises:
        ValueError: If there are nulls, which pandas has made NaN where they were numbers.
    """
    place = Place(f"Column {name!r}")
    rows = series["type"] if hasattr(series, "columns") else series
    if rows.isna().any():
        raise place.error("no nulls", "null", int(rows.isna().to_numpy().argmax()))
    if hasattr(series, "columns"):  # what pandas gets of a vector: a table of its parts
        parts = [pa.array(series[c], from_pandas=True) for c in series.columns]
        column = pa.StructArray.from_arrays(parts, names=list(series.columns))
    else:
        column = pa.array(series, from_pandas=False)
    return to_numpy(column, place)


def predictor_for(spec: ReplicaSpec, key: str, threads: int) -> Replica:
    """The process's replica of a model that only predicts, built at the first call.

    A query may run several models, one behind the other, each of which comes back with
    every task; so a few are kept, those that were used last.
    """
    replica = _predictors.pop(key, None)
    _predictors[key] = build(spec, threads) if replica is None else replica
    while len(_predictors) > MAX_PREDICTORS:
        del _predictors[next(iter(_predictors))]
    return _predictors[key]
