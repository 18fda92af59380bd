"""Score Parquet files: the tasks read and write rows, and the driver makes the result visible."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, DataType, StringType, StructField, UserDefinedType

from kspark.adapters import Columns
from kspark.adapters.column_names import missing
from kspark.adapters.dataframe import check_new_column
from kspark.adapters.feeds import plan_frame
from kspark.adapters.files import PART_BYTES, ChosenColumns, map_numbers, slots_for
from kspark.adapters.slices import vector_array
from kspark.cluster.failures import worker_error
from kspark.cluster.slots import threads_per_task
from kspark.cluster.spark_job import Watch, run_once
from kspark.errors import Failure, invalid
from kspark.files.commit import Output
from kspark.files.reading import Column
from kspark.files.table import ParquetFiles
from kspark.files.types import ROW_METADATA
from kspark.job.frame_scoring import SharedModel, score_frame
from kspark.plan.checks import check_integer
from kspark.worker.files import ScoringTask, Written, score_shard
from kspark.worker.inference import InferenceTask
from kspark.worker.scores import Scores


@dataclass(frozen=True)
class Scoring:
    """How rows are scored.

    Attributes:
        model: `SharedModel`.
        columns: `Columns` that name the features.
        added: List of `StructField`, the new columns.
        scores: `Scores`, which makes the new columns.
        batch_size: Integer.
        arguments: Mapping from a new column to the argument that names it. Defaults to
            `"output_col"` for all.
    """

    model: SharedModel
    columns: Columns
    added: list[StructField]
    scores: Scores
    batch_size: int
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, str]:
        """The new columns, with the argument that names each."""
        return {one.name: self.arguments.get(one.name, "output_col") for one in self.added}

    def frame(self, rows: DataFrame) -> DataFrame:
        """Return a lazy DataFrame with the columns of `rows` and the new ones.

        Raises:
            ValueError: If a new column's name is taken, or a feature column is missing.
        """
        for name, argument in self.named.items():
            check_new_column(rows, name, argument)
        model, columns = self.model, self.columns
        return score_frame(model, rows, columns, self.added, self.scores, self.batch_size)


def score_files(
    scoring: Scoring,
    files: ParquetFiles,
    kept: Sequence[str] | None,
    output: Output,
    num_workers: int | None = None,
    watch: Watch | None = None,
) -> int:
    """Write the rows of files with scores of a model to a folder of Parquet files.

    Args:
        scoring: `Scoring`.
        files: `ParquetFiles`.
        kept: Sequence of strings, columns to write beside the new ones; `None` for all.
        output: `Output`.
        num_workers: Integer, number of tasks, each of which writes a file. Defaults to `None`: one
            per task slot, and more if they would have more than `PART_BYTES` each.
        watch: `Watch` of the job. Defaults to `None`.

    Returns:
        Integer, number of rows.

    Raises:
        ValueError: If a column is missing or taken, or of a type that is not read or written, or
            files to read are in the output.
        FileExistsError: If the output exists, and is not to be replaced.
        WorkerError: If a worker failed.
    """
    model, spark = scoring.model, scoring.model.spark
    output.keep_apart((file.place for file in files.files), "files of `x`")
    chosen = ChosenColumns.of(files, plan_frame(scoring.columns, model.inputs))
    keeping = kept_columns(files, kept, scoring.named)
    schema = schema_of(files, keeping, scoring.added)
    if num_workers is None:
        # Each task begins again at a failure, so it should not have too much to do.
        num_workers = max(slots_for(spark, files), files.nbytes // PART_BYTES)
    shards = files.split(check_integer("num_workers", num_workers, 1))
    task = ScoringTask(
        InferenceTask(model.key, scoring.batch_size, threads_per_task(spark)),
        chosen.plan,
        files.selection([*keeping, *chosen.columns]),
        schema,
        scoring.scores,
        output.attempts,
        shards,
    )
    try:
        output.begin()
        results = map_numbers(spark, len(shards), model.ship(score_shard, task))
        written = checked(run_once(spark, results, "kspark: predict files", watch))
        commit(output, written, schema)
    finally:
        output.discard()
    return sum(one.rows for one in written)


def kept_columns(
    files: ParquetFiles, kept: Sequence[str] | None, added: Mapping[str, str]
) -> list[Column]:
    """Return the columns to write beside the new ones.

    Raises:
        ValueError: If there is no such column, it is not read, or a new one has its name.
    """
    if isinstance(kept, str):
        raise invalid("columns", "None or a list of names of columns", kept)
    names = files.schema.names if kept is None else list(kept)
    found = []
    for name in names:
        own = files.own_name(name)
        column = None if own is None else files.column(own)
        if column is None:
            raise missing(name, files.schema.names, "columns")
        found.append(column)
    taken = {column.name.lower() if files.ignore_case else column.name for column in found}
    for name, argument in added.items():
        if (name.lower() if files.ignore_case else name) in taken:
            rule = f"a name that is not among the columns {[column.name for column in found]}"
            raise invalid(argument, rule, name)
    if len(taken) != len(found):
        raise invalid("columns", "a list of different columns", list(names))
    return found


def schema_of(
    files: ParquetFiles, kept: Sequence[Column], added: Sequence[StructField]
) -> pa.Schema:
    """Return the schema to write. It has Spark's own description, so that vectors stay vectors."""
    fields = [pa.field(column.name, column.kind) for column in kept]
    fields += [pa.field(one.name, arrow_type(one.dataType)) for one in added]
    known = files.fields
    described = [known[column.name] for column in kept] + [one.jsonValue() for one in added]
    text = json.dumps({"type": "struct", "fields": described})
    return pa.schema(fields, metadata={ROW_METADATA: text.encode()})


def arrow_type(kind: DataType) -> pa.DataType:
    """Return the Arrow type of a new column: vectors, text, doubles, or (nested) lists of them."""
    if isinstance(kind, ArrayType):
        return pa.list_(arrow_type(kind.elementType))
    if isinstance(kind, UserDefinedType):
        return vector_array(np.zeros((0, 1))).type
    return pa.string() if isinstance(kind, StringType) else pa.float64()


def checked(results: list[Any]) -> list[Written]:
    """Return what tasks wrote, in the order of the shards.

    Raises:
        WorkerError: If a task failed.
    """
    for result in results:
        if isinstance(result, Failure):
            raise worker_error(result)
    return sorted(results, key=lambda one: one.shard)


def commit(output: Output, written: Sequence[Written], schema: pa.Schema) -> None:
    """Make the files of a job visible. Without rows, there is one file that has the columns."""
    names = [one.name for one in written if one.name]
    if not names:
        names = ["empty.parquet"]
        place = f"{output.attempts.path}/{names[0]}"
        pq.write_table(schema.empty_table(), place, filesystem=output.system)
    output.commit(names)
