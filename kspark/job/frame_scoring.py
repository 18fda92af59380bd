"""Add a model's scores to lazy DataFrames, and register functions of SQL that compute them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import DataType, StructField, StructType

from kspark.adapters import Columns
from kspark.adapters.dataframe import check_new_column, chosen_plan
from kspark.adapters.feeds import FramePlan, plan_frame
from kspark.adapters.frame_columns import FrameColumns
from kspark.cluster.bootstrap import Shipped, ship
from kspark.cluster.engine import engine_of
from kspark.cluster.resources import current_profile, frame_arguments
from kspark.cluster.slots import threads_per_task
from kspark.job.row_counts import scoring_folder
from kspark.replica import ReplicaSpec
from kspark.worker import inference as inference_worker
from kspark.worker.inference import InferenceTask
from kspark.worker.scores import Scores, Values

ARROW_UDF: Any = getattr(F, "arrow_udf", None)
"""`pyspark.sql.functions.arrow_udf`, from Spark 4.1 on; otherwise `None`."""

COLUMNAR_INPUT = "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled"
"""Setting of Spark 4.3 and later: pass a columnar reader's columns to functions unconverted.
Spark then fails if the DataFrame has vectors, even in columns that the function does not read. It
also takes a fifth more time than with rows, where the reader's columns are not those of Arrow."""

MAX_FUNCTIONS = 16
"""The most functions of one model that are kept for later DataFrames."""


class SharedModel:
    """A model that is broadcast to the executors for any number of predictions.

    Args:
        spark: `SparkSession`.
        spec: `ReplicaSpec`.
        key: String that identifies the predictions of the model. Tasks with the same key use the
            same replica in a process. Defaults to a key that no other model has.
    """

    def __init__(self, spark: SparkSession, spec: ReplicaSpec, key: str | None = None) -> None:
        self.spark = spark
        self.backend = spec.backend
        self.key = spec.digest + uuid.uuid4().hex if key is None else key
        self.inputs = spec.rows
        engine = engine_of(spark)
        engine.use_warm_workers(spec.backend)
        # Never destroyed: a lazy DataFrame may need it at any time. Spark removes it when
        # there are no references to it.
        self._shared = engine.share(spec)
        self._functions: dict[tuple[Any, ...], Any] = {}
        self._lock = Lock()  # Several threads may use a stage.

    def ship(self, function: Callable[..., Any], *args: Any) -> Shipped:
        """Ship a function that takes the model's `ReplicaSpec` after `args`.

        See `kspark.cluster.bootstrap.ship`.
        """
        return ship(function, *args, shared=(self._shared,))

    def column_function(self, shipped: Shipped, num_columns: int, kind: DataType) -> Any:
        """Return Spark's function of columns that calls `shipped`.

        The next DataFrame with the same columns gets the same function, because Spark pickles a
        function and hands it to the JVM at its first use.

        Args:
            shipped: `Shipped` function of this model.
            num_columns: Integer, number of columns that it takes.
            kind: `DataType` of its result.
        """
        key = (shipped.target, shipped.args, shipped.log, num_columns, kind.json())
        with self._lock:
            function = self._functions.pop(key, None)
            if function is None:
                made = ARROW_UDF(arrow_function(shipped, num_columns), kind)
                # Spark may run a deterministic function again for each filter on its result.
                function = made.asNondeterministic()
            self._functions[key] = function
            while len(self._functions) > MAX_FUNCTIONS:
                del self._functions[next(iter(self._functions))]
        return function


def predict_frame(
    spark: SparkSession,
    spec: ReplicaSpec,
    frame: DataFrame,
    columns: Columns,
    added: list[StructField],
    batch_size: int,
) -> DataFrame:
    """Return a lazy DataFrame with the columns of `frame` and the model's outputs.

    Args:
        spark: `SparkSession`.
        spec: `ReplicaSpec`.
        frame: DataFrame to read.
        columns: `Columns` that name the features.
        added: List of `StructField`, the new columns, one per output.
        batch_size: Integer.

    Raises:
        ValueError: If a new column's name is taken, or a feature column is missing.
    """
    for field in added:
        check_new_column(frame, field.name, "output_col")
    return score_frame(SharedModel(spark, spec), frame, columns, added, Values(), batch_size)


def score_frame(
    model: SharedModel,
    frame: DataFrame,
    columns: Columns,
    added: list[StructField],
    scores: Scores,
    batch_size: int,
) -> DataFrame:
    """Return a lazy DataFrame with the columns of `frame` and scores of a model.

    Args:
        model: `SharedModel`.
        frame: DataFrame to read, which may be a stream. It is read once, so that scores stay
            with their rows.
        columns: `Columns` that name the features.
        added: List of `StructField`, the new columns. The caller checks their names with
            `check_new_column`.
        scores: `Scores`, which makes the new columns.
        batch_size: Integer.

    Raises:
        ValueError: If a feature column is missing, or of a type that the model does not take.
    """
    plan = plan_frame(columns, model.inputs)
    packed, _ = chosen_plan(FrameColumns(frame), plan)
    spark = frame.sparkSession
    counts = scoring_folder(spark)
    task = InferenceTask(model.key, batch_size, threads_per_task(spark), counts=counts)
    if ARROW_UDF is not None and current_profile() is None:
        return score_by_column(model, frame, task, packed, added, scores)
    return score_by_row(model, frame, task, plan, added, scores)


def score_by_column(
    model: SharedModel,
    frame: DataFrame,
    task: InferenceTask,
    plan: FramePlan,
    added: list[StructField],
    scores: Scores,
) -> DataFrame:
    """Add scores with a function of columns (Spark 4.1 and later).

    Only the features are sent to Python.
    """
    features = FrameColumns(frame).sources(plan)
    rows = with_rows_converted(frame)
    if len(added) == 1:
        shipped = model.ship(inference_worker.predict_last, task, plan, scores)
        score = model.column_function(shipped, len(features), added[0].dataType)
        return rows.select("*", score(*features).alias(added[0].name))
    names = [field.name for field in added]
    shipped = model.ship(inference_worker.predict_columns, task, plan, names, scores)
    score = model.column_function(shipped, len(features), StructType(added))
    temporary = f"kspark_{uuid.uuid4().hex}"
    scored = rows.select("*", score(*features).alias(temporary))
    new = [F.col(temporary).getField(name).alias(name) for name in names]
    return scored.select("*", *new).drop(temporary)


def with_rows_converted(frame: DataFrame) -> DataFrame:
    """Return a DataFrame whose rows Spark converts for functions, and not a reader's columns.

    A filter that Spark cannot push down converts the columns to rows. It takes about a tenth of
    the time of a query that scores, so it is left out where `COLUMNAR_INPUT` is off.
    """
    if str(frame.sparkSession.conf.get(COLUMNAR_INPUT, "false")).lower() == "true":
        return frame.where(F.spark_partition_id() >= 0)
    return frame


def arrow_function(shipped: Shipped, num_columns: int) -> Callable[..., Iterator[pa.Array]]:
    """Return `shipped` as a function with the type hints from which Spark derives its arguments."""

    def score_one(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        # SQL may pass more than one column. The worker then raises an error.
        return shipped(column if isinstance(column, tuple) else (column,) for column in columns)

    def score_many(columns: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        return shipped(columns)

    return score_one if num_columns == 1 else score_many


def score_by_row(
    model: SharedModel,
    frame: DataFrame,
    task: InferenceTask,
    plan: FramePlan,
    added: list[StructField],
    scores: Scores,
) -> DataFrame:
    """Add scores with a function of rows: all columns are sent to Python and back."""
    columns = FrameColumns(frame)
    nested = [name for name in plan.names if columns.own_name(name) is None]
    fields = [columns.column(name).alias(f"kspark_{i}") for i, name in enumerate(nested)]
    places = {name: i for i, name in enumerate([*columns.names, *nested])}
    positions = [places[columns.own_name(name) or name] for name in plan.names]
    schema = StructType([*frame.schema.fields, *added])
    names, count = schema.fieldNames(), len(columns.names)
    shipped = model.ship(
        inference_worker.predict_batches, task, plan, positions, count, names, scores
    )
    return frame.select("*", *fields).mapInArrow(shipped, schema, **frame_arguments())


def score_udf(
    model: SharedModel,
    spark: SparkSession,
    columns: Columns,
    kind: DataType,
    scores: Scores,
    batch_size: int,
) -> Any:
    """Return a user-defined function that computes one score from the feature columns.

    Args:
        model: `SharedModel`.
        spark: `SparkSession`.
        columns: `Columns` of the features. The function takes them as arguments, in this order.
        kind: `DataType` of the score.
        scores: `Scores`; the last of its columns is the score.
        batch_size: Integer.

    Returns:
        User-defined function, to call with columns or to register for SQL.
    """
    plan = plan_frame(columns, model.inputs)
    counts = scoring_folder(spark)
    task = InferenceTask(model.key, batch_size, threads_per_task(spark), counts=counts)
    if ARROW_UDF is not None:
        spark.conf.set(COLUMNAR_INPUT, "false")  # any DataFrame may be passed to it
        shipped = model.ship(inference_worker.predict_last, task, plan, scores)
        return ARROW_UDF(arrow_function(shipped, len(plan.names)), kind)
    shipped = model.ship(inference_worker.predict_series, task, plan, scores)

    def score(*series: pd.Series) -> pd.Series:
        return shipped(*series)

    make: Any = pandas_udf  # its overloads have no variadic functions
    return make(score, kind)
