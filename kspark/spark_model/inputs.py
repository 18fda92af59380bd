"""Turn the data of a call into examples for a model, and predictions into the result of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np
from pyspark.sql import DataFrame, SparkSession

from kspark import job
from kspark.adapters import Columns, Examples, Factory, Spooled, Stream, adapt, is_table
from kspark.adapters.file_paths import is_files, open_files, warn_of_paths
from kspark.adapters.sparse import with_first_rows
from kspark.adapters.unused import check_columns_used
from kspark.classic import RDD
from kspark.cluster.running import check_running
from kspark.errors import Described, inside, invalid
from kspark.job.progress import Phases
from kspark.plan import TrainingPlan
from kspark.replica import Replica, ReplicaSpec
from kspark.replica.labels import check_labels, check_text
from kspark.replica.preprocessing import Preprocessing
from kspark.replica.signature import is_built
from kspark.session.default import session_of
from kspark.shards import InputSpec
from kspark.spark_model.factories import readable, take_batches, take_validation
from kspark.spark_model.preprocessing import RawRows, Steps, checked_preprocessing, first_row


def sized(
    plan: TrainingPlan,
    x: Any,
    validation_data: Any,
    batch_size: int | None,
    validation_batch_size: int | None,
) -> TrainingPlan:
    """Return a plan with the sizes of the batches in the data, where the user has set no sizes.

    Args:
        plan: `TrainingPlan`.
        x: The training data.
        validation_data: The validation data, or `None`.
        batch_size: Integer that the user has set, or `None`.
        validation_batch_size: Integer that the user has set, or `None`.
    """
    if isinstance(x, Factory):
        take_batches(x, plan, batch_size)
    if isinstance(validation_data, Factory):
        plan = take_validation(validation_data, plan, validation_batch_size)
    size, validation_size = plan.batch_size, plan.validation_batch_size
    if batch_size is None and isinstance(x, Stream):
        size = x.batch_size
    if validation_batch_size is None:
        own = isinstance(validation_data, Stream)
        validation_size = validation_data.batch_size if own else size
    return replace(plan, batch_size=size, validation_batch_size=validation_size)


def limit_stream(x: Any, limit: int | None, progress: Phases) -> None:
    """Set the number of rows to read from data that gives batches, and show how many were read.

    Args:
        x: The data. If it is no `Stream`, nothing happens.
        limit: Integer, number of rows, or `None` for all.
        progress: `Phases` to show it on.
    """
    if isinstance(x, Stream):
        progress.phase("Reading the rows")
        x.limit = limit
        x.watch = lambda rows: progress.wait(f"{rows:,}")


def opened(x: Any, filters: Any = None, y: Any = None) -> Any:
    """Return data as it is, or the files that paths name.

    Args:
        x: The user's data.
        filters: Which rows of files to use. Defaults to `None`, all.
        y: The user's labels, beside which a list of strings is text. Defaults to `None`.

    Returns:
        `x`; or `ParquetFiles`, or a DataFrame if only Spark reaches the path.

    Raises:
        ValueError: If there are filters for data that is not in files, or they are not usable.
        OSError: If files do not exist, or cannot be read.
    """
    if is_files(x, labelled=y is not None):
        return open_files(session_of(x), x, filters)
    warn_of_paths(x)
    if filters is not None:
        rule = "None unless `x` names Parquet files; choose the rows of other data beforehand"
        raise invalid("filters", rule, filters)
    return x


def example_for(
    model: keras.Model,
    x: Any,
    columns: Columns,
    *,
    labelled: bool,
    num_workers: int | None = None,
) -> Any:
    """Return the data from which `Replica.of` can build a model.

    A model without an input shape needs the first row, and sparse matrices become their first row;
    for other models, and for arrays, it is `x` itself.

    Args:
        model: A `keras.Model`.
        x: The user's data.
        columns: `Columns` of a DataFrame.
        labelled: Boolean, whether the rows of `x` must contain labels.
        num_workers: Integer, number of shards. Defaults to `None`.
    """
    if isinstance(x, Stream):
        return x.example
    if isinstance(x, Spooled):
        return x.example()
    if isinstance(x, Factory) and not is_built(model):
        return job.first_of_factory(session_of(x), x, num_workers)
    x = with_first_rows(x)
    is_plain = isinstance(x, np.ndarray | Mapping)
    if is_built(model) or is_plain:
        return x
    if not isinstance(model, keras.Sequential) and not is_table(x):
        return x  # rows of other data may have several inputs
    wanted = labelled and model.loss is not None
    return job.first_example(session_of(x), x, columns, labelled=wanted)


class Source:
    """Makes examples for one model from the user's data.

    Args:
        model: A compiled `keras.Model`.
        x: The user's data.
        columns: `Columns` of a DataFrame.
        num_workers: Integer, number of shards, or `None` for the partitions of the data.
        labelled: Boolean, whether the rows of `x` must contain labels.
        with_labels: Boolean, whether there are labels beside `x`. Defaults to `False`.
        steps: `Steps` that are done to the rows of each batch. Defaults to none.

    Attributes:
        replica: `Replica` that uses `model` itself, not a copy.
        of_spooled: `Columns` that the caller has named for spooled rows, which refuse them.
        preprocessing: `Preprocessing` of the rows, or `None`.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        columns: Columns,
        num_workers: int | None,
        *,
        labelled: bool,
        with_labels: bool = False,
        steps: Steps = Steps(),  # noqa: B008 (frozen)
    ) -> None:
        check_running(x)
        self.columns = self.of_spooled = columns
        self.num_workers = num_workers
        self.preprocessing: Preprocessing | None = None
        self._x = x
        if steps.preprocess is None:
            example = example_for(model, x, columns, labelled=labelled, num_workers=num_workers)
            self.replica = Replica.of(model, example, with_labels=with_labels)
            if steps.augment is not None:
                inputs = self.replica.inputs
                first = first_row(self.spark, x, columns, inputs, num_workers)
                self.preprocessing = checked_preprocessing(steps, (), inputs, first)
            return
        lazy = isinstance(x, DataFrame) and not labelled and is_built(model)
        raw = RawRows.of(
            self.spark, model, x, columns, num_workers, labelled=labelled, looks=not lazy
        )
        self.columns = raw.columns
        first = raw.first_inputs(steps.preprocess)
        self.replica = Replica.of(model, first, with_labels=with_labels)
        self.preprocessing = checked_preprocessing(steps, raw.names, self.replica.inputs, first)

    @property
    def rows(self) -> InputSpec:
        """`InputSpec` of the rows."""
        inputs = self.replica.inputs
        return inputs if self.preprocessing is None else self.preprocessing.rows(inputs)

    @classmethod
    def of(
        cls,
        model: keras.Model,
        x: Any,
        y: Any,
        columns: Columns,
        num_workers: int | None,
        steps: Steps = Steps(),  # noqa: B008 (frozen)
    ) -> Source:
        """Make the source of a fit on `x` and the labels `y`, or on rows of `x` with labels."""
        labels = {"labelled": y is None, "with_labels": y is not None}
        return cls(model, x, columns, num_workers, steps=steps, **labels)

    def spec(self, model: keras.Model, custom_objects: Mapping[str, Any]) -> ReplicaSpec:
        """Describe the model for the workers, with what they do to the rows."""
        return ReplicaSpec.of(model, custom_objects, self.replica.inputs, self.preprocessing)

    @cached_property
    def spark(self) -> SparkSession:
        """The session of the data, or else the active session; or one that is started now."""
        return session_of(self._x)

    def evaluation(self, x: Any, y: Any, sample_weight: Any, count: int | None) -> Examples:
        """Make examples to evaluate: the first `count` rows, or all."""
        if not isinstance(x, Spooled):
            check_columns_used(self.columns, x, y, sample_weight=sample_weight)
        return self._adapt(x, y, sample_weight, count=count)

    def training(
        self, x: Any, y: Any, sample_weight: Any, validation_split: float
    ) -> tuple[Examples, Examples | None]:
        """Make examples to train on, and examples to validate on.

        The second are `None` without a `validation_split`, and if each shard must be split by
        itself.
        """
        examples = self._adapt(x, y, sample_weight)
        if validation_split:
            parts = examples.split(validation_split)
            if parts is not None:
                return parts
        return examples, None

    def validation(self, data: Any, count: int | None = None) -> Examples:
        """Make examples to validate on: the first `count` rows, or all.

        A list counts as a tuple, as in Keras.

        Raises:
            ValueError: If a tuple has another length than 2 or 3, or the data does not fit.
            TypeError: If the data has a wrong type.
        """
        if is_files(data):
            with inside("validation_data"):
                data = open_files(self.spark, data)
        if isinstance(data, tuple | list):
            if len(data) not in (2, 3):
                rule = (
                    "(x, y) or (x, y, sample_weight); or an RDD, a DataFrame, paths, spooled rows "
                    "or a function, not in a tuple"
                )
                raise invalid(
                    "validation_data", rule, Described(f"a {type(data).__name__} of {len(data)}")
                )
        check_running(data)
        with inside("validation_data"):
            parts = data if isinstance(data, tuple | list) else (data,)
            x, *labels = parts
            if not isinstance(x, Factory):
                x = readable(x, limited=count is not None)
            if isinstance(x, Stream):
                x.limit = count
            return self._adapt(x, *labels, count=count)

    def features(self, x: Any, count: int | None = None) -> Examples:
        """Make examples without labels, in the order of the rows: the first `count`, or all.

        The rows of an RDD stay in their partitions, because moving them changes their order.
        """
        if not isinstance(x, Spooled):
            check_columns_used(self.columns, x)
        spec = self.rows
        bare = InputSpec(inputs=spec.inputs, x_structure=spec.x_structure)
        workers = None if isinstance(x, RDD) else self.num_workers
        return adapt(
            self.spark, x, spec=bare, columns=self.columns, num_workers=workers, count=count
        )

    def _adapt(
        self, x: Any, y: Any = None, sample_weight: Any = None, *, count: int | None = None
    ) -> Examples:
        examples = adapt(
            self.spark,
            x,
            y,
            sample_weight,
            spec=self.rows,
            columns=self.of_spooled if isinstance(x, Spooled) else self.columns,
            num_workers=self.num_workers,
            count=count,
        )
        check_text(self.replica.model, examples.text_labels)
        if examples.summary is not None:
            check_labels(self.replica.model, [examples.summary])
        return examples


@dataclass(frozen=True)
class TrainingData:
    """Examples to train on and to validate on.

    Attributes:
        examples: `Examples` to train on.
        held_out: `Examples` to validate on, or `None`.
        validation_split: Float, the fraction of each shard to validate on instead of training.
    """

    examples: Examples
    held_out: Examples | None
    validation_split: float

    @classmethod
    def of(
        cls,
        source: Source,
        data: tuple[Any, Any, Any],
        validation_split: float,
        validation_data: Any,
        count: int | None = None,
    ) -> TrainingData:
        """Make examples from the arguments of `fit`.

        Args:
            source: `Source`.
            data: Tuple `(x, y, sample_weight)`.
            validation_split: Float.
            validation_data: Data to validate on instead of a split, or `None`.
            count: Integer, number of rows of `validation_data` to use. Defaults to `None`, all.
        """
        if not isinstance(data[0], Spooled):  # They refuse names themselves.
            x, y, weights = data
            check_columns_used(source.columns, x, y, validation_data, sample_weight=weights)
        if validation_data is not None:
            validation_split = 0.0
        if any(is_table(some) or is_files(some) for some in (data[0], validation_data)):
            source.of_spooled = Columns()  # The names are those of the table's columns.
        examples, held_out = source.training(*data, validation_split)
        if validation_data is not None:
            held_out = source.validation(validation_data, count)
        return cls(examples, held_out, validation_split if held_out is None else 0.0)
