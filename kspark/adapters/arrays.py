"""Arrays on the driver, divided into slices that the executors read once.

On a `local` master, the driver writes the slices to files, so that no data goes through the
JVM. Otherwise, each slice is some Spark broadcasts, which only the executor that needs
them fetches. Unlike the elements of `parallelize`, they may be larger than a task.
Over Spark Connect, slices are rows of a DataFrame, see `kspark.adapters.sending`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from math import floor
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from kspark import temporary
from kspark.adapters.base import CHUNK_BYTES, Columns, Examples, Task
from kspark.adapters.chunks import conform_chunk, mapped, narrowed
from kspark.adapters.conform import Place, cast, reshaped, stack, unnested
from kspark.adapters.refusals import no_labels, plain_array, shown
from kspark.adapters.sending import num_slots, read_broadcasts, read_files, sent
from kspark.adapters.sparse import compressed, is_matrix
from kspark.adapters.structure import leaves, part_name, weight_specs
from kspark.adapters.summary import summary_of
from kspark.adapters.tensors import decoded, host_array
from kspark.classic import RDD, Broadcast
from kspark.cluster.addresses import is_local
from kspark.cluster.bootstrap import ship
from kspark.cluster.remote import is_connect
from kspark.cluster.results import Results
from kspark.errors import Described, invalid
from kspark.shards import (
    ArraySpec,
    Chunk,
    InputSpec,
    ShardHandle,
    SparseRows,
    spool,
)

PIECES = 8
"""Pieces in a broadcast, of `CHUNK_BYTES` each: the JVM holds one broadcast in its heap while it
receives it, and afterwards writes it to disk where memory is short."""


class ArrayExamples(Examples):
    """Arrays on the driver.

    Args:
        spark: `SparkSession`.
        chunk: `Chunk` of all rows, in the shapes of `spec`.
        spec: `InputSpec`.
        num_partitions: Integer, number of slices. A slice has consecutive rows; the numbers
            of rows differ by at most one.
    """

    def __init__(
        self, spark: SparkSession, chunk: Chunk, spec: InputSpec, num_partitions: int
    ) -> None:
        self._spark = spark
        self._chunk = chunk
        self._spec = spec
        self._num_partitions = num_partitions
        self._broadcasts: list[Broadcast[list[Chunk]]] = []
        self._folders: list[weakref.finalize] = []

    @property
    def num_examples(self) -> int:  # type: ignore[override]
        """Number of rows."""
        return self._chunk.num_examples

    @property
    def num_partitions(self) -> int:
        """Number of slices."""
        return self._num_partitions

    @property
    def first(self) -> Chunk:
        """The first row."""
        return conform_chunk(self._chunk.rows(0, 1), self._spec, None, 0)

    @property
    def text_labels(self) -> dict[str, str]:
        """See `Examples.text_labels`."""
        targets = zip(self._spec.targets, self._chunk.y, strict=False)
        return {spec.name: "text" for spec, array in targets if holds_text(array)}

    @property
    def summary(self) -> ShardHandle:
        """See `Examples.summary`."""
        return summary_of(self._chunk, self._spec)

    def _repartition(self, num_partitions: int) -> ArrayExamples:
        return ArrayExamples(self._spark, self._chunk, self._spec, num_partitions)

    def first_rows(self, count: int) -> ArrayExamples:
        """See `Examples.first_rows`."""
        return self._part(0, min(count, self.num_examples))

    def split(self, validation_split: float) -> tuple[Examples, Examples]:
        """Split off the last fraction of the rows, as Keras does.

        Raises:
            ValueError: If one of the two parts would be empty.
        """
        count = self.num_examples
        at = floor(count * (1.0 - validation_split))
        if not 0 < at < count:
            rule = f"a fraction that leaves rows to train and rows to validate, of {count} in all"
            raise invalid("validation_split", rule, validation_split)
        return self._part(0, at), self._part(at, count)

    def _part(self, start: int, stop: int) -> ArrayExamples:
        rows = self._chunk.rows(start, stop)
        parts = max(1, min(self._num_partitions, stop - start))
        return ArrayExamples(self._spark, rows, self._spec, parts)

    def map_chunks(self, task: Task) -> Results:
        """See `Examples.map_chunks`."""
        if is_connect(self._spark):
            return sent(self._spark, list(self._slices()), self._narrowed, self._spec, task)
        if is_local(self._spark.sparkContext.master):
            return self._map_files(task)
        return self._map_broadcasts(task)

    def close(self) -> None:
        """Delete the files and destroy the broadcasts."""
        while self._folders:
            self._folders.pop()()
        while self._broadcasts:
            self._broadcasts.pop().destroy()

    def _map_files(self, task: Task) -> RDD[Any]:
        folder = temporary.Folder(temporary.ARRAYS)
        self._folders.append(weakref.finalize(self, folder.remove))
        how: dict[str, Any] = {"directory": str(folder.path), "is_loose": self._spec.is_loose}
        documents = [
            spool(self._pieces(rows, start), index, "arrays", **how).to_json()
            for index, (start, rows) in enumerate(self._slices())
        ]
        run = partial(ship(read_files, self._spec), task)
        return self._spark.sparkContext.parallelize(
            documents, len(documents)
        ).mapPartitionsWithIndex(run)

    def _map_broadcasts(self, task: Task) -> RDD[Any]:
        parts, context = [], self._spark.sparkContext
        for index, (start, rows) in enumerate(self._slices()):
            pieces, broadcasts = self._pieces(rows, start), []
            while some := list(islice(pieces, PIECES)):
                broadcasts.append(context.broadcast(some))
                self._broadcasts.append(broadcasts[-1])  # at once: the next one may fail
            shared = tuple(broadcasts)
            shipped = ship(read_broadcasts, self._spec, index, shared=shared, in_turn=True)
            run = partial(shipped, task)
            parts.append(context.parallelize([index], 1).mapPartitions(run))
        return context.union(parts)

    def _slices(self) -> Iterator[tuple[int, Chunk]]:
        bounds = slice_bounds(self.num_examples, self._num_partitions)
        for start, stop in zip(bounds, bounds[1:], strict=False):
            yield start, self._chunk.rows(start, stop)

    def _pieces(self, rows: Chunk, start: int) -> Iterator[Chunk]:
        for piece in rows.pieces(CHUNK_BYTES):
            yield self._narrowed(piece, start)
            start += piece.num_examples

    def _narrowed(self, rows: Chunk, start: int) -> Chunk:
        """Cast rows to the dtypes to send: the model's, or the user's if it is smaller."""
        return mapped(rows, self._spec, partial(narrowed, floatx=self._spec.floatx), None, start)


def adapt_arrays(
    spark: SparkSession, x: Any, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> ArrayExamples:
    """Make examples from arrays, or from lists of numbers or rows.

    Raises:
        ValueError: If they do not fit `spec`, have no rows, or different numbers of rows.
    """
    chunk = chunk_of(x, y, sample_weight, spec)
    count = max(1, min(num_slots(spark), chunk.num_examples))
    return ArrayExamples(spark, chunk, spec, count)


def chunk_of(x: Any, y: Any, sample_weight: Any, spec: InputSpec) -> Chunk:
    """Make a chunk of all arrays in the shapes of `spec`. Their values are checked later."""
    if y is not None and not spec.targets:
        rule = "None for a model without targets, or when there is none to compare"
        raise invalid("y", rule, Described(shown(y)))
    if y is None and spec.targets:
        raise no_labels(x, [target.name for target in spec.targets])
    weights = weight_specs(sample_weight, spec)
    outputs = spec.outputs if len(weights) > 1 else ()
    chunk = Chunk(
        shaped(x, spec.inputs, "x", spec.floatx),
        [] if y is None else shaped(y, spec.targets, "y", spec.floatx, spec.outputs),
        []
        if sample_weight is None
        else shaped(sample_weight, weights, "sample_weight", spec.floatx, outputs),
    )
    if not all(np.isfinite(array).all() for array in chunk.sample_weight):
        raise invalid("sample_weight", "finite", Described("weights with NaN or infinity"))
    lengths = [len(a) for a in chunk.arrays]
    if len(set(lengths)) > 1:
        raise ValueError(
            "All arrays of `x`, `y` and `sample_weight` must have the same number of rows. "
            f"Received: {lengths} rows"
        )
    if not lengths[0]:
        raise invalid("x", "a data set with at least one example", Described("0 examples"))
    return chunk


def shaped(
    value: Any, specs: Sequence[ArraySpec], name: str, floatx: str, outputs: Sequence[str] = ()
) -> list[Any]:
    """Return one array per spec, in the shape of the spec. Those of `x` may be `SparseRows`.

    Raises:
        TypeError, ValueError: If a part is no array, or of another kind than its spec.
    """
    arrays = []
    if len(specs) == 1 and is_one_array(value):
        value = value[0]
    for i, leaf in enumerate(leaves(value, specs, name, outputs)):
        place = Place(part_name(name, specs, i))
        rows = compressed(leaf, place) if name == "x" else leaf
        array = as_array(rows, place, is_loose=specs[i].is_loose)
        if array.dtype == object:
            array = cast(array, specs[i].dtype, floatx, place)
        else:
            cast(array[:1], specs[i].dtype, floatx, place)  # the others when they are sent
        arrays.append(reshaped(array, specs[i], place))
    return arrays


def is_one_array(value: Any) -> bool:
    """Whether a value is a list with one array, as Keras takes it, not one row or number."""
    if not isinstance(value, list | tuple) or len(value) != 1:
        return False
    is_row = hasattr(value[0], "toArray")  # one of Spark's vectors
    has_rows = hasattr(value[0], "__array__") or is_matrix(value[0])
    return has_rows and np.ndim(value[0]) > 0 and not is_row


def as_array(value: Any, place: Place, *, is_loose: bool = False) -> Any:
    """Convert a value to an array whose first axis is the row. `SparseRows` are one already."""
    if isinstance(value, SparseRows):
        return value
    if isinstance(value, list | tuple):
        if len(value) == 1 and np.ndim(value[0]) > 1:
            value = value[0]  # a list of the input's array
        else:
            if value and hasattr(value[0], "detach"):  # tensors of PyTorch
                value = list(map(host_array, value))
            value = stack(value, place, is_loose=is_loose) if value else np.empty(0)
    array = plain_array(value, place.name.strip("`"))
    if getattr(getattr(value, "dtype", None), "name", "") == "string" or array.dtype.kind == "S":
        array = decoded(array, place)
    if array.dtype == object and is_loose and array.ndim == 1:
        return stack(array.tolist(), place, is_loose=True)
    return unnested(array, place) if array.dtype == object else array


def holds_text(array: np.ndarray) -> bool:
    """Whether the first value of an array is text. Workers check the others."""
    return array.dtype.kind == "U" or (array.dtype == object and isinstance(array.flat[0], str))


def slice_bounds(count: int, parts: int) -> list[int]:
    """Return the bounds of `parts` near-equal slices of `count` rows, longer ones first."""
    size, longer = divmod(count, parts)
    return [i * size + min(i, longer) for i in range(parts + 1)]
