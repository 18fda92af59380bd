"""Score files in a Spark task: read rows, predict, and write them with the predictions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from kspark.adapters.feeds import FramePlan
from kspark.errors import Failure
from kspark.files.paths import Resolved
from kspark.files.reading import Selection, read_pieces
from kspark.files.splits import Piece
from kspark.files.writing import PartWriter
from kspark.replica import ReplicaSpec
from kspark.worker.inference import InferenceTask, predict_rows
from kspark.worker.scores import Scores
from kspark.worker.tasks import guarded


@dataclass(frozen=True)
class ScoringTask:
    """What a task needs to score files.

    Attributes:
        inference: `InferenceTask`.
        plan: `FramePlan` of the features.
        selection: `Selection` of the columns to keep, and then those of `plan`.
        schema: `pa.Schema` of the files to write: the columns to keep, and those of `scores`.
        scores: `Scores`, which converts outputs to columns.
        folder: `Resolved`, the folder of the files to write.
        shards: Sequence of the `Piece`s of each shard.
    """

    inference: InferenceTask
    plan: FramePlan
    selection: Selection
    schema: pa.Schema
    scores: Scores
    folder: Resolved
    shards: Sequence[tuple[Piece, ...]]


@dataclass(frozen=True)
class Written:
    """The file that an attempt of a task wrote.

    Attributes:
        shard: Integer.
        name: String, its name; `""` if there were no rows, and so no file.
        rows: Integer, number of its rows.
    """

    shard: int
    name: str
    rows: int


def score_shard(
    task: ScoringTask, spec: ReplicaSpec, index: int, numbers: Iterator[int]
) -> Iterator[Written | Failure]:
    """Score the rows of one shard.

    Yields:
        `Written`, or a `Failure` if the model raised an error.
    """
    yield guarded(index, lambda: write_scores(task, spec, index))
    for _ in numbers:
        pass


def write_scores(task: ScoringTask, spec: ReplicaSpec, index: int) -> Written:
    """Write the rows of one shard with their scores to a file with a name of this attempt's own."""
    name = f"{index:05d}-{uuid.uuid4().hex}.parquet"
    place = Resolved(task.folder.root, f"{task.folder.path}/{name}")
    first = 0
    with PartWriter(place, task.schema) as writer:
        for batch in read_pieces(task.shards[index], task.selection):
            writer.write(scored(task, spec, batch, first))
            first += batch.num_rows
    return Written(index, name if writer.rows else "", writer.rows)


def scored(
    task: ScoringTask, spec: ReplicaSpec, batch: pa.RecordBatch, first: int
) -> pa.RecordBatch:
    """Return the columns to keep of a batch that is not empty, and the scores of its rows."""
    kept = batch.num_columns - len(task.plan.names)
    outputs = predict_rows(task.inference, task.plan, spec, batch.columns[kept:], first)
    columns = [*batch.columns[:kept], *task.scores.columns(outputs)]
    return pa.RecordBatch.from_arrays(columns, schema=task.schema)
