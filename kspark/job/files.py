"""Score Parquet files: the tasks read and write rows, and the driver makes the result visible."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, DataType, StringType, StructField

from kspark.adapters import Columns
from kspark.adapters.feeds import missing, plan_frame
from kspark.adapters.files import PART_BYTES, ChosenColumns, map_numbers, slots_for
from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.cluster.failures import worker_error
from kspark.cluster.slots import threads_per_task
from kspark.cluster.spark_job import Watch, run_once
from kspark.errors import Failure, invalid
from kspark.files.commit import Output
from kspark.files.reading import Column
from kspark.files.table import ParquetFiles
from kspark.files.types import ROW_METADATA
from kspark.plan.checks import check_integer
from kspark.replica import ReplicaSpec
from kspark.worker.files import ScoringTask, Written, score_shard
from kspark.worker.inference import InferenceTask
from kspark.worker.scores import Values


def predict_files(
    spark: SparkSession,
    spec: ReplicaSpec,
    files: ParquetFiles,
    columns: Columns,
    kept: Sequence[str] | None,
    added: list[StructField],
    output: Output,
    batch_size: int,
    num_workers: int | None = None,
    watch: Watch | None = None,
) -> int:
    """Write the rows of files with the model's outputs to a folder of Parquet files.

    Args:
        spark: `SparkSession`.
        spec: `ReplicaSpec`.
        files: `ParquetFiles`.
        columns: `Columns` that name the features.
        kept: Sequence of strings, columns to write beside the outputs; `None` for all.
        added: List of `StructField`, the new columns, one per output.
        output: `Output`.
        batch_size: Integer.
        num_workers: Integer, number of tasks, each of which writes a file. Defaults to `None`: one
            per task slot, and more if they would have more than `PART_BYTES` each.
        watch: `Watch` of the job. Defaults to `None`.

    Returns:
        Integer, number of rows.

    Raises:
        ValueError: If a column is missing or taken, or of a type that is not read or written.
        FileExistsError: If the output exists, and is not to be replaced.
        WorkerError: If a worker failed.
    """
    chosen = ChosenColumns.of(files, plan_frame(columns, spec.inputs))
    keeping = kept_columns(files, kept, [field.name for field in added])
    schema = schema_of(files, keeping, added)
    if num_workers is None:
        # Each task begins again at a failure, so it should not have too much to do.
        num_workers = max(slots_for(spark, files), files.nbytes // PART_BYTES)
    shards = files.split(check_integer("num_workers", num_workers, 1))
    task = ScoringTask(
        InferenceTask(uuid.uuid4().hex, batch_size, threads_per_task(spark)),
        chosen.plan,
        files.selection([*keeping, *chosen.columns]),
        schema,
        Values(),
        output.attempts,
        shards,
    )
    shared = engine_of(spark).share(spec)
    try:
        output.begin()
        results = map_numbers(spark, len(shards), ship(score_shard, task, shared=(shared,)))
        written = checked(run_once(spark, results, "kspark: predict files", watch))
        commit(output, written, schema)
    finally:
        shared.destroy()
        output.discard()
    return sum(one.rows for one in written)


def kept_columns(
    files: ParquetFiles, kept: Sequence[str] | None, added: Sequence[str]
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
    for name in added:
        if (name.lower() if files.ignore_case else name) in taken:
            rule = f"a name that is not among the columns {[column.name for column in found]}"
            raise invalid("output_col", rule, name)
    if len(taken) != len(found):
        raise invalid("columns", "a list of different columns", list(names))
    return found


def schema_of(
    files: ParquetFiles, kept: Sequence[Column], added: Sequence[StructField]
) -> pa.Schema:
    """Return the schema to write. It has Spark's own description, so that vectors stay vectors."""
    fields = [pa.field(column.name, column.kind) for column in kept]
    fields += [pa.field(field.name, arrow_type(field.dataType)) for field in added]
    known = files.fields
    described = [known[column.name] for column in kept] + [field.jsonValue() for field in added]
    text = json.dumps({"type": "struct", "fields": described})
    return pa.schema(fields, metadata={ROW_METADATA: text.encode()})


def arrow_type(kind: DataType) -> pa.DataType:
    """Return the Arrow type of an output's column: text, doubles, or (nested) lists of them."""
    if isinstance(kind, ArrayType):
        return pa.list_(arrow_type(kind.elementType))
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
