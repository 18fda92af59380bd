"""Evaluation and prediction in a Spark task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kspark.adapters.conform import Place
from kspark.adapters.feeds import FramePlan
from kspark.cluster.failures import UnfitLabelsError
from kspark.errors import Failure, invalid
from kspark.replica import ReplicaSpec
from kspark.shards import (
    TEXT,
    Chunk,
    LabelStats,
    Shard,
    ShardHandle,
    StoredArray,
    Window,
)
from kspark.tracebacks import shows_the_users_line
from kspark.worker.counting import RowCounter, counted
from kspark.worker.predictors import predict_windows
from kspark.worker.scores import Scores
from kspark.worker.series import series_array
from kspark.worker.state import replica_for
from kspark.worker.tasks import Result, ShardResult, check_unchanged, guarded, read_to_end

if TYPE_CHECKING:
    from kspark.replica import Replica


@dataclass(frozen=True)
class InferenceTask:
    """The task of an evaluation or prediction.

    Attributes:
        key: String. Tasks with the same key share a replica in a process.
        batch_size: Integer, examples per batch.
        threads: Integer, threads that a replica may use.
        num_train: Mapping from shard to the number of rows to skip at its start. Defaults to no
            rows.
        rows: Mapping from shard to the number of rows to use after these. Defaults to all.
        alone: Boolean, whether there is a single shard, so that there are no metrics of others to
            add. Defaults to `False`.
        counts: String, folder in which the tasks count their rows, see `RowCounter`. Defaults to
            `""`: they do not.
    """

    key: str
    batch_size: int
    threads: int
    num_train: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] | None = None
    alone: bool = False
    counts: str = ""


def evaluate_shard(
    task: InferenceTask, spec: ReplicaSpec, vector: np.ndarray, handle: ShardHandle
) -> ShardResult:
    """Evaluate one shard. Returns its metric state."""
    start = task.num_train.get(handle.index, 0)
    count = handle.num_examples - start if task.rows is None else task.rows.get(handle.index, 0)
    if count <= 0:
        return ShardResult(handle.index, 0)
    check_unchanged(handle, start + count)
    windows = Shard.open(handle).windows(task.batch_size, start=start, stop=start + count)
    return evaluate_windows(task, spec, vector, handle.index, windows)


def evaluate_windows(
    task: InferenceTask,
    spec: ReplicaSpec,
    vector: np.ndarray | None,
    shard: int,
    windows: Iterable[Window],
) -> ShardResult:
    """Evaluate windows. Without a vector, use the model's own weights."""
    replica = replica_for(spec, task.key, task.threads)
    replica.alone = task.alone
    if vector is not None:
        replica.set_vector(vector)
    replica.reset_metrics()
    num_examples = 0
    y: tuple[StoredArray, ...] = ()
    with RowCounter(task.counts, task.key) as counter:
        for window in windows:
            if not num_examples:
                replica.check_summable(window, task.batch_size)
                y = label_arrays(window)
            for part in counter.parts(window, task.batch_size):
                replica.evaluate(part, task.batch_size)
            num_examples += window.num_examples
    metrics = replica.metric_state() if num_examples else []
    return ShardResult(shard, num_examples, metrics=metrics, y=y)


def label_arrays(window: Window) -> tuple[StoredArray, ...]:
    """Return names, dtypes and shapes of a window's labels."""
    return tuple(
        StoredArray(f"y{i}", TEXT if a.dtype == object else a.dtype.name, a.shape[1:], "", 0)
        for i, a in enumerate(window.y)
    )


def evaluate_chunks(
    task: InferenceTask, spec: ReplicaSpec, index: int, chunks: Iterator[Chunk]
) -> Iterator[Result]:
    """Evaluate one partition that is read once."""

    def windows() -> Iterator[Window]:
        for chunk in chunks:
            window = chunk.window()
            check_window(replica_for(spec, task.key, task.threads), window)
            yield window

    yield guarded(index, lambda: evaluate_windows(task, spec, None, index, windows()))
    read_to_end(chunks)


def check_window(replica: Replica, window: Window) -> None:
    """Check that labels fit the loss, as a fit does before it begins.

    Raises:
        UnfitLabelsError: If they do not fit.
    """
    from kspark.replica.labels import check_facts  # Imports Keras, after its backend was chosen.

    stats = [None if a.dtype == object else LabelStats.of(a) for a in window.y]
    try:
        check_facts(replica.model, label_arrays(window), stats)
    except ValueError as error:
        raise UnfitLabelsError(str(error)) from error


def predict_chunks(
    task: InferenceTask, spec: ReplicaSpec, index: int, chunks: Iterator[Chunk]
) -> Iterator[tuple[int, list[np.ndarray]] | Failure]:
    """Predict one partition in the order of its rows. The first failure ends the prediction.

    Yields:
        Tuples of the partition and a list of one array per output, or a `Failure`.
    """

    def predict_next(counter: RowCounter) -> tuple[int, list[np.ndarray]] | None:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        replica = replica_for(spec, task.key, task.threads)
        parts = counter.parts(chunk.window(), task.batch_size)
        return index, joined([replica.predict(part, task.batch_size) for part in parts])

    with RowCounter(task.counts, task.key) as counter:
        while (result := guarded(index, partial(predict_next, counter))) is not None:
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
    """Add columns with the model's outputs to record batches, in one pass.

    Args:
        task: `InferenceTask`.
        plan: `FramePlan`.
        positions: List of integers, positions of the columns of `plan` in a batch.
        num_kept: Integer, number of columns at the start of a batch to keep.
        names: List of strings, names of the kept columns and then of the columns of `scores`.
        scores: `Scores`, which converts outputs to columns.
        spec: `ReplicaSpec`.
        batches: Iterator of record batches.
    """
    first = 0
    for batch in counted(task.counts, task.key, batches):
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
    """Predict the rows of columns, batch by batch.

    Args:
        task: `InferenceTask`.
        plan: `FramePlan`.
        names: List of strings, names of the columns of `scores`.
        scores: `Scores`, which converts outputs to columns.
        spec: `ReplicaSpec`.
        batches: Iterator of tuples of the columns of `plan`, in its order.
    """
    first = 0
    for columns in counted(task.counts, task.key, batches):
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
    """Predict as `predict_columns` does, but yield only the last column of `scores`.

    Raises:
        ValueError: If an SQL function was called with a wrong number of columns.
    """
    first = 0
    for columns in counted(task.counts, task.key, batches):
        if len(columns) != len(plan.sources):
            raise invalid("columns", f"{len(plan.names)}: {plan.names}", len(columns))
        outputs = predict_rows(task, plan, spec, list(columns), first)
        first += len(columns[0])
        if outputs:
            yield scores.columns(outputs)[-1]


@shows_the_users_line
def predict_rows(
    task: InferenceTask,
    plan: FramePlan,
    spec: ReplicaSpec,
    columns: list[pa.Array],
    first_row: int = 0,
) -> list[np.ndarray]:
    """Predict rows of the columns of `plan`. Returns one array per output, none without rows."""
    names = [f"c{i}" for i in range(len(columns))]
    features = pa.RecordBatch.from_arrays(columns, names=names)
    chunks = plan.chunks(features, None, first_row)
    parts = []
    for chunk in chunks:
        parts += predict_windows(spec, task.key, task.threads, [chunk.window()], task.batch_size)
    return joined(parts)


def joined(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Join predictions of consecutive rows. Returns one array per output, none without parts."""
    if len(parts) == 1:
        return parts[0]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


@shows_the_users_line
def predict_series(
    task: InferenceTask, plan: FramePlan, scores: Scores, spec: ReplicaSpec, *series: Any
) -> Any:
    """Predict rows of pandas series. Returns the last column of `scores` as a pandas series.

    Args:
        task: `InferenceTask`.
        plan: `FramePlan`.
        scores: `Scores`, which converts outputs to columns.
        spec: `ReplicaSpec`.
        *series: Pandas series with the same rows, one per column of `plan`.

    Raises:
        ValueError: If the number of series is wrong, or a series contains nulls.
    """
    if len(series) != len(plan.names):
        raise invalid("columns", f"{len(plan.names)}: {plan.names}", len(series))
    loose = {name for feed in plan.x if feed.is_loose for name in feed.names}
    found = {n: series_array(n, s, n in loose) for n, s in zip(plan.names, series, strict=True)}
    inputs = [
        feed.array([found[n] for n in feed.names], plan.floatx, Place(feed.title))
        for feed in plan.x
    ]
    windows = [Chunk(inputs).window()]
    (outputs,) = predict_windows(spec, task.key, task.threads, windows, task.batch_size)
    return scores.columns(outputs)[-1].to_pandas()
