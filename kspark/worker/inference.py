"""Evaluation and prediction in a Spark task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from kspark.adapters.frames import FramePlan
from kspark.errors import Failure
from kspark.replica import ReplicaSpec
from kspark.shards import TEXT, Chunk, Shard, ShardHandle, StoredArray, Window
from kspark.worker.results import Result, RoundResult, guarded, read_to_end
from kspark.worker.state import replica_for


@dataclass(frozen=True)
class InferenceTask:
    """An evaluation or prediction.

    Attributes:
        key: String; tasks of one key share a replica in a process.
        batch_size: Integer.
        threads: Integer, threads a replica may use.
        num_train: Mapping from shard to the rows to skip at its start.
        class_weight: Never used here; validation is unweighted, as in Keras.
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
        yield guarded(handle.index, partial(evaluate_shard, task, spec, vector, handle))


def evaluate_shard(
    task: InferenceTask, spec: ReplicaSpec, vector: np.ndarray, handle: ShardHandle
) -> RoundResult:
    """Metric state of one shard."""
    start = task.num_train.get(handle.index, 0)
    count = handle.num_examples - start
    if count <= 0:
        return RoundResult(handle.index, 0)
    windows = Shard.open(handle).windows(task.batch_size, start=start)
    return evaluate_windows(task, spec, vector, handle.index, windows)


def evaluate_windows(
    task: InferenceTask,
    spec: ReplicaSpec,
    vector: np.ndarray | None,
    shard: int,
    windows: Iterable[Window],
) -> RoundResult:
    """Metric state over some windows; without a vector the model's own weights are used."""
    replica = replica_for(spec, task.key, task.threads)
    if vector is not None:
        replica.set_vector(vector)
    replica.reset_metrics()
    result = RoundResult(shard, 0)
    for window in windows:
        if not result.num_examples:
            replica.check_summable(window, task.batch_size)
            result.y = label_arrays(window)
        replica.evaluate(window, task.batch_size)
        result.num_examples += window.num_examples
    if result.num_examples:
        result.metrics = replica.metric_state()
    return result


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
    yield guarded(
        index,
        lambda: evaluate_windows(task, spec, None, index, (chunk.window() for chunk in chunks)),
    )
    read_to_end(chunks)


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
    names: list[str],
    spec: ReplicaSpec,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Record batches with the model's outputs as more columns, in one pass.

    Args:
        task: `InferenceTask`.
        plan: `FramePlan`; its columns are the last ones of every batch.
        names: Names of the columns to yield: those that are kept, then one per output.
        spec: `ReplicaSpec`.
        batches: Record batches; the first columns are kept as they are.
    """
    replica = replica_for(spec, task.key, task.threads)
    first = 0
    for batch in batches:
        cut = batch.num_columns - len(plan.names)
        features = pa.RecordBatch.from_arrays(batch.columns[cut:], names=plan.names)
        chunks = plan.chunks(features, None, first)
        parts = [replica.predict(chunk.window(), task.batch_size) for chunk in chunks]
        first += batch.num_rows
        if parts:
            outputs = [arrow_array(np.concatenate(p)) for p in zip(*parts, strict=True)]
            yield pa.RecordBatch.from_arrays([*batch.columns[:cut], *outputs], names=names)


def arrow_array(values: np.ndarray) -> pa.Array:
    """One value per row: a double for scalars and vectors of one, else (nested) lists of them."""
    values = np.ascontiguousarray(values, np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    array = pa.array(values.reshape(-1))
    for length in reversed(values.shape[1:]):
        offsets = np.arange(0, len(array) + 1, length, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array
