"""Functions of `(worker, num_workers)` that make the data of each worker beside that worker.

They return what `streams` reads on the driver: batches, one after the other. Nothing is written to
files: whoever uses `FactoryRows` reads the rows as they come.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from kspark.adapters.arrays import chunk_of, slice_bounds
from kspark.adapters.base import Columns, Examples, Task, run_task
from kspark.adapters.batches import (
    Batch,
    check_alike,
    first_rows,
    kinds_of,
    num_rows,
    parts_of,
    placed,
    unpacked,
)
from kspark.adapters.chunks import conform_chunk
from kspark.adapters.files import map_numbers
from kspark.adapters.refusals import shown
from kspark.adapters.streams import (
    is_stream,
)
from kspark.adapters.users_data import RETURNS, check_data, users_batches, users_code
from kspark.cluster.bootstrap import ship
from kspark.cluster.failures import FactoryError, failure_json
from kspark.cluster.remote import is_connect
from kspark.cluster.results import Results
from kspark.errors import Described, invalid, invalid_type
from kspark.replica.backends.randomness import OwnRandomness
from kspark.shards import Chunk, InputSpec

Make = Callable[..., Any]
"""Function of a worker, the number of workers and a seed, which returns the user's data."""


@dataclass
class Factory:
    """The user's function in place of data, with what a call has set for its batches.

    Attributes:
        make: `Make`.
        batch_size: Integer, rows per batch that the user has set. Defaults to `None`: batches
            stay as they are.
        steps: Integer, number of batches of all workers together. Defaults to `None`, all.
        seed: Integer, for the random generators. Defaults to `None`: they are not seeded.
    """

    make: Make
    batch_size: int | None = None
    steps: int | None = None
    seed: int | None = None


def is_factory(value: object) -> bool:
    """Whether a value is a function, and not data that can be called."""
    return callable(value) and not is_stream(value) and not hasattr(value, "shape")


def check_signature(function: Any) -> None:
    """Check that a function can be called with the number of a worker and that of all workers.

    Raises:
        TypeError: If it cannot.
    """
    try:
        fits, alone = can_be_called(function, 0, 1), can_be_called(function)
        if fits and not (alone and takes_other_values(function)):
            return
        name = getattr(function, "__name__", type(function).__name__)
        received = f"`{name}{inspect.signature(function)}`"
        if alone:
            received += ". To read what it returns on the driver, call it: `x=function()`"
        if fits:
            received += (
                ". For the workers, name its first two parameters `worker` and `num_workers`, or "
                "leave out their defaults"
            )
    except ValueError:  # A builtin without a signature. The workers will see.
        return
    raise invalid_type("x", f"data, or {RETURNS}", Described(received))


def takes_other_values(function: Any) -> bool:
    """Whether the first two parameters have defaults, and names that are not those of a worker.

    They are then most likely settings of a function without its parentheses.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    first = [one for one in parameters if one.kind in kinds][:2]
    names = {one.name for one in first if one.default is not inspect.Parameter.empty}
    return len(names) == len(first) == 2 and not names & {"worker", "num_workers"}


def can_be_called(function: Any, *arguments: Any) -> bool:
    """Whether a function takes some arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


@dataclass(frozen=True)
class FactoryRows:
    """The rows of all workers, which a task reads as chunks.

    Attributes:
        make: `Make`.
        spec: `InputSpec` of the model.
        num_workers: Integer.
    """

    make: Make
    spec: InputSpec
    num_workers: int

    def chunks(
        self, worker: int, seed: int | None = None, *, limited: bool = False
    ) -> Generator[Chunk, None, None]:
        """Call the function, and yield its batches as the model takes them.

        Args:
            worker: Integer.
            seed: Integer, for the random generators. Defaults to `None`.
            limited: Boolean, whether the caller stops at some row, so that the data need not have
                an end. Defaults to `False`.

        Raises:
            FactoryError: If the user's code raises an exception.
            TypeError: If the function returns no data.
            ValueError: If the data has no end, or a batch does not fit the model.
        """
        first, kinds = 0, None
        with closing(self.batches(worker, seed, limited=limited)) as batches:
            for number, (x, y, sample_weight) in batches:
                with placed(worker, number):
                    if not self.spec.targets:  # as for a prediction
                        y = sample_weight = None
                    elif y is None:
                        rule = "a function whose batches are (x, y) or (x, y, sample_weight)"
                        raise invalid("x", rule, Described("a batch of features alone"))
                    chunk = chunk_of(x, y, sample_weight, self.spec)
                    chunk = conform_chunk(chunk, self.spec, worker, first)
                    kinds = kinds_of(chunk) if kinds is None else kinds
                    check_alike(kinds, kinds_of(chunk))
                yield chunk
                first += chunk.num_examples

    def batches(
        self, worker: int, seed: int | None = None, *, limited: bool = False
    ) -> Generator[tuple[int, Batch], None, None]:
        """Call the function, and yield its batches with rows, as the user made them.

        Yields:
            Tuple of the number of a batch, from 1 on, and the batch.
        """
        randomness = OwnRandomness() if seed is not None else None
        with users_code(randomness):
            data = self.make(worker, self.num_workers, seed)
        check_data(data, limited=limited)
        with closing(users_batches(data, randomness)) as batches:
            for number, batch in enumerate(batches, 1):
                with placed(worker, number):
                    parts = unpacked(batch)
                if num_rows(parts_of(parts[0])[0]):
                    yield number, parts


def no_rows(worker: int, num_workers: int) -> ValueError:
    """Return the error for a worker whose data has no rows."""
    rule = (
        "a function whose data has at least one row for each worker (or set a smaller "
        "`num_workers`)"
    )
    return invalid("x", rule, Described(f"no rows for worker {worker} of {num_workers}"))


class FactoryExamples(Examples):
    """The rows that a function makes beside each worker.

    Args:
        spark: `SparkSession`.
        factory: `Factory`.
        spec: `InputSpec` of the model.
        num_partitions: Integer, number of workers.
    """

    def __init__(
        self, spark: SparkSession, factory: Factory, spec: InputSpec, num_partitions: int
    ) -> None:
        self.factory = factory
        self._spark = spark
        self._spec = spec
        self._num_partitions = num_partitions

    @property
    def num_partitions(self) -> int:
        """Number of workers."""
        return self._num_partitions

    @property
    def rows(self) -> FactoryRows:
        """The rows, for tasks."""
        return FactoryRows(self.factory.make, self._spec, self._num_partitions)

    def _repartition(self, num_partitions: int) -> FactoryExamples:
        return FactoryExamples(self._spark, self.factory, self._spec, num_partitions)

    def first_rows(self, count: int) -> FactoryExamples:
        """Return the examples as they are: `Factory.steps` limits them, not a number of rows."""
        return self

    def split(self, validation_split: float) -> None:
        """Refuse to split rows of which nobody knows the number.

        Raises:
            ValueError: Always.
        """
        rule = "0 with a function of (worker, num_workers): pass `validation_data`, or another one"
        raise invalid("validation_split", rule, validation_split)

    def map_chunks(self, task: Task) -> Results:
        """See `Examples.map_chunks`."""
        shipped = ship(read_factory, self.rows, self.factory)
        return self.map_workers(partial(shipped, task))

    def map_workers(self, run: Any) -> Results:
        """Run a task for each worker, with its number."""
        return map_numbers(self._spark, self._num_partitions, run)


def adapt_factory(
    spark: SparkSession, x: Factory, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> FactoryExamples:
    """Make examples from a function of `(worker, num_workers)`, for one worker per task slot.

    Raises:
        ValueError: If there are labels or weights beside it.
    """
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            rule = "`None` for a function of (worker, num_workers), whose batches contain it"
            raise invalid(name, rule, Described(shown(value)))
    count = 1 if is_connect(spark) else spark.sparkContext.defaultParallelism
    return FactoryExamples(spark, x, spec, count)


def read_factory(
    rows: FactoryRows, factory: Factory, task: Task, index: int, numbers: Iterator[Any]
) -> Iterator[Any]:
    """Run a task over the rows of one worker. Runs on an executor."""
    seed, steps = None if factory.seed is None else factory.seed + index, factory.steps
    with closing(rows.chunks(index, seed, limited=steps is not None)) as chunks:

        def read(source: Iterator[Any]) -> Iterator[Chunk]:
            if steps is None:
                return chunks
            bounds = slice_bounds(steps, rows.num_workers)
            return first_steps(chunks, bounds[index + 1] - bounds[index], factory.batch_size)

        yield from run_task(task, index, numbers, read)


def first_steps(
    chunks: Iterator[Chunk], steps: int, batch_size: int | None = None
) -> Iterator[Chunk]:
    """Yield the rows of the first batches, which have `batch_size` rows or are as they come.

    No further batch is read.
    """
    left = steps if batch_size is None else steps * batch_size
    while left > 0 and (chunk := next(chunks, None)) is not None:
        yield chunk if batch_size is None else chunk.rows(0, left)
        left -= 1 if batch_size is None else chunk.num_examples


def first_features(rows: FactoryRows, index: int, numbers: Iterator[Any]) -> Iterator[Any]:
    """Yield the features of the first row of worker 0, or why there are none. On an executor."""
    for _ in numbers:
        pass
    try:
        with closing(rows.batches(0, limited=True)) as batches:
            for _, (x, _, _) in batches:
                yield first_rows(x)
                return
        raise no_rows(0, rows.num_workers)
    except (ValueError, TypeError, FactoryError) as error:
        yield failure_json(0, error)
