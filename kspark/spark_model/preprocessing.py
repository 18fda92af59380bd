"""The arguments `preprocess` and `augment`: what rows they get, tried on the first row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from pyspark.sql import SparkSession

from kspark import job
from kspark.adapters import Columns, Factory, Spooled, Stream, is_table
from kspark.adapters.feeds import feature_names
from kspark.adapters.tables import with_names
from kspark.classic import RDD
from kspark.cluster.failures import BOLD
from kspark.errors import Described, invalid
from kspark.replica.comparing import untouched_randomness
from kspark.replica.model_inputs import (
    as_arrays,
    as_inputs,
    host_array,
    is_array,
    refused,
    shown,
)
from kspark.replica.preprocessing import Preprocessing
from kspark.replica.signature import described_inputs, is_built
from kspark.replica.steps import Step, checked
from kspark.shards import InputSpec, raw_arrays
from kspark.shards.ragged import alike

SINGLE_NAME = "x"
"""The name of an array that has none."""

TRIED_ROWS = 2
"""Number of times that the first row is in the batch with which steps are tried."""


@dataclass(frozen=True)
class Steps:
    """What is done to the rows of each batch.

    Attributes:
        preprocess: `Step`, or `None`. Defaults to `None`.
        augment: `Step`, or `None`. Defaults to `None`.
        kept: The function or the layer of `preprocess`. Defaults to `None`.
    """

    preprocess: Step | None = None
    augment: Step | None = None
    kept: Any = None

    @classmethod
    def of(
        cls,
        kept: Any,
        preprocess: Any,
        augment: Any = None,
        custom_objects: Mapping[str, Any] | None = None,
    ) -> Steps:
        """Check the arguments of a call.

        Args:
            kept: The `preprocess` of the model.
            preprocess: That of the call: `None` for that of the model, `False` for none.
            augment: As in `SparkModel.fit`. Defaults to `None`.
            custom_objects: Mapping from name to class or function that layers need.

        Raises:
            TypeError: If one is neither a function nor a layer.
            ValueError: If one cannot be sent to the workers.
        """
        chosen = kept if preprocess is None else None if preprocess is False else preprocess
        chosen, augment = checked("preprocess", chosen), checked("augment", augment)
        return cls(
            Step.of("preprocess", chosen, custom_objects),
            Step.of("augment", augment, custom_objects),
            chosen,
        )

    @contextmanager
    def set_on(self, owner: Any) -> Iterator[None]:
        """Set the `preprocess` of a model inside the block, and longer if the block succeeds.

        Args:
            owner: `SparkModel`.
        """
        before, owner.preprocess = owner.preprocess, self.kept
        try:
            yield
        except BaseException:
            owner.preprocess = before
            raise


@dataclass(frozen=True)
class RawRows:
    """The features of some data, as `preprocess` gets them.

    Attributes:
        names: Tuple of strings: the columns of a table, the keys of a dictionary, the names of the
            inputs for a list of as many arrays, or else `"x"`.
        columns: `Columns`, which name the features.
        arrays: List of one array of one row per name, or empty if there is no row, or it was not
            read.
    """

    names: tuple[str, ...]
    columns: Columns
    arrays: list[np.ndarray]

    @classmethod
    def of(
        cls,
        session: SparkSession,
        model: keras.Model,
        x: Any,
        columns: Columns,
        num_workers: int | None,
        *,
        labelled: bool,
        looks: bool = True,
    ) -> RawRows:
        """Find out the names of the features, and read those of the first row.

        Args:
            session: `SparkSession`.
            model: `keras.Model`.
            x: The user's data.
            columns: `Columns` of tables.
            num_workers: Integer, number of shards, or `None`.
            labelled: Boolean, whether the rows of `x` must contain labels.
            looks: Boolean, whether to read the first row. Defaults to `True`.
        """
        if is_table(x):
            columns = with_names(x, columns, bare=not labelled)
            names = feature_names(columns.features_col)
            if not looks or getattr(x, "isStreaming", False):
                return cls(names, columns, [])
            spec = InputSpec(raw_arrays(names))
            return cls(names, columns, job.first_arrays(session, x, columns, spec))
        if isinstance(x, RDD):
            rows = job.first_of_rdd(session, x, labelled=labelled)
            names = names_of(rows[0], model) if rows else (SINGLE_NAME,)
            spec = InputSpec(raw_arrays(names))
            return cls(names, columns, job.first_arrays_of_rdd(rows, spec))
        joined = joined_column(x) if isinstance(x, Spooled) else None
        example = first_of_batches(session, x, num_workers)
        names = names_of(example, model) if joined is None else (joined,)
        spec = InputSpec(raw_arrays(names))
        return cls(names, columns, job.first_arrays(session, example, columns, spec))

    def first_inputs(self, step: Step) -> Any:
        """Return what `preprocess` makes of the first row, which it gets twice, as arrays.

        `None` without a row.

        Raises:
            ValueError: If it fails.
        """
        if not self.arrays:
            return None
        arrays = (alike(np.repeat(a, TRIED_ROWS, axis=0)) for a in self.arrays)
        rows = dict(zip(self.names, arrays, strict=True))
        given = f"a dictionary of arrays with the keys {list(self.names)}"
        if step.takes_one_array and len(self.names) == 1:
            given = f"the array {self.names[0]!r}"
        found = tried(step, rows, given)
        if found is None:
            raise refused("preprocess", "the inputs of the model", "None")
        if isinstance(found, Mapping):
            return {name: as_array(part) for name, part in found.items()}
        return list(map(as_array, found)) if isinstance(found, list | tuple) else as_array(found)


def as_array(value: Any) -> np.ndarray:
    """Return an array or a tensor that `preprocess` has returned as a NumPy array.

    Raises:
        ValueError: If it is neither of them, as for the workers.
    """
    if not is_array(value):
        raise refused("preprocess", "arrays, the inputs of the model", shown(value))
    return host_array("preprocess", value, "")


def first_of_batches(session: SparkSession, x: Any, num_workers: int | None) -> Any:
    """Return the features of the first row of data that comes in batches, and other data as it is.

    Args:
        session: `SparkSession`.
        x: The user's data.
        num_workers: Integer, number of shards, or `None`.
    """
    if isinstance(x, Factory):
        return job.first_of_factory(session, x, num_workers)
    if isinstance(x, Spooled):
        return x.first_row()
    return x.example if isinstance(x, Stream) else x


def first_row(
    session: SparkSession, x: Any, columns: Columns, inputs: InputSpec, num_workers: int | None
) -> Any:
    """Return the first row of data that are the model's inputs; `None` for RDDs, and without one.

    Args:
        session: `SparkSession`.
        x: The user's data.
        columns: `Columns` of tables.
        inputs: `InputSpec` of the model.
        num_workers: Integer, number of shards, or `None`.
    """
    if isinstance(x, RDD):
        return None
    example = first_of_batches(session, x, num_workers)
    arrays = job.first_arrays(session, example, columns, InputSpec(inputs.inputs))
    return as_inputs([np.repeat(a, TRIED_ROWS, axis=0) for a in arrays], inputs) if arrays else None


def joined_column(x: Spooled) -> str | None:
    """Return the column of a table that the features of spooled rows were, or `None`.

    Raises:
        ValueError: If several columns were joined to one array when they were spooled.
    """
    if len(x.columns) > 1:
        pairs = [f"{name!r}: {name!r}" for name in x.columns[:3]]
        more = ", ..." if len(x.columns) > len(pairs) else ""
        rule = (
            "one column, or a dictionary of columns, for `preprocess`, which gets its keys: pass "
            f"`features_col={{{', '.join(pairs)}{more}}}` to `kspark.data.spool`"
        )
        raise invalid("features_col", rule, Described(f"a list of {len(x.columns)} columns"))
    return x.columns[0] if x.columns else None


def names_of(features: Any, model: keras.Model) -> tuple[str, ...]:
    """Return the names of the arrays of features, or of the parts of one row."""
    if isinstance(features, Mapping):
        if not features or not all(isinstance(name, str) for name in features):
            raise invalid("x", "a dictionary of arrays by name", list(features))
        return tuple(features)
    inputs = [spec.name for spec in described_inputs(model, None)[0]] if is_built(model) else []
    is_list = isinstance(features, list | tuple) and len(features) == len(inputs) > 1
    if is_list and all(np.ndim(part) > 0 for part in features):
        return tuple(inputs)
    return (SINGLE_NAME,)


def tried(step: Step, rows: Any, given: str) -> Any:
    """Call a step with the first row.

    Args:
        step: `Step`.
        rows: The row.
        given: String, what it gets.

    Raises:
        ValueError: If it raises an exception.
    """
    built = step.make()
    try:
        with untouched_randomness():
            return built(rows, training=step.argument == "augment")
    except Exception as error:
        raise ValueError(
            f"`{step.argument}` must take {given}. Received: {step.shown}, which raised "
            f"{type(error).__name__}: {BOLD.sub('', str(error))}. It was called with two copies of "
            "the first row"
        ) from error


def checked_preprocessing(
    steps: Steps, names: Sequence[str], inputs: InputSpec, first: Any
) -> Preprocessing:
    """Check what the steps return for the first row, and return them as plain data.

    Args:
        steps: `Steps`.
        names: Sequence of strings, the names of the features.
        inputs: `InputSpec` of the model.
        first: The inputs of the first row, or `None` if it was not read.

    Raises:
        ValueError: If a step does not return the inputs of the model.
    """
    if first is not None:
        argument = "preprocess" if steps.preprocess is not None else "augment"
        arrays = as_arrays(argument, first, inputs, TRIED_ROWS)
        if steps.augment is not None:
            found = tried(steps.augment, as_inputs(arrays, inputs), "a batch of the model's inputs")
            as_arrays("augment", found, inputs, TRIED_ROWS)
    return Preprocessing(tuple(names), steps.preprocess, steps.augment)
