"""Batches on the driver that can be read only once: `tf.data`, PyDatasets, DataLoaders, generators.

Their rows are written to temporary files, batch by batch, and then used as arrays that are mapped
from these files. So the driver needs memory for a batch, and disk for the rows. The files are
deleted as soon as they are mapped: the system frees their space when the arrays are gone.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from kspark import temporary
from kspark.adapters.arrays import (
    ArrayExamples,
    adapt_arrays,
    chunk_of,
)
from kspark.adapters.base import Columns
from kspark.adapters.batches import (
    Batch,
    first_rows,
    is_row,
    num_rows,
    parts_of,
    single_rows,
    unpacked,
)
from kspark.adapters.chunks import mapped, narrowed
from kspark.adapters.refusals import ACCEPTED, conversion, refused, shown
from kspark.cluster.interrupts import interruptible
from kspark.errors import Described, invalid
from kspark.shards import ArraySpec, Chunk, Features, InputSpec, SparseRows, StoredArray
from kspark.shards.files import read_ranges
from kspark.shards.sparse import POSITION, START
from kspark.shards.writing import ShardWriter

TENSORFLOW, TORCH, KERAS = "tensorflow.", "torch.", "keras."
INFINITE = -1
"""What `tf.data.Dataset.cardinality` returns for a data set without an end."""


def is_stream(value: object) -> bool:
    """Whether a value gives batches one after the other, and is no array or table."""
    return isinstance(value, Iterator) or kind_of(value) is not None


def kind_of(value: object) -> str | None:
    """Return `"tf.data"`, `"PyDataset"` or `"DataLoader"`; `None` for anything else.

    The packages need not be installed, so the classes are known by their names.
    """
    for kind in type(value).__mro__:
        module, name = f"{kind.__module__}.", kind.__name__
        if module.startswith(TENSORFLOW) and name == "DatasetV2":
            return "tf.data"
        if module.startswith(KERAS) and name == "PyDataset":
            return "PyDataset"
        if module.startswith(TORCH) and name == "DataLoader":
            return "DataLoader"
    return None


END = object()
"""What comes after the last batch."""


@dataclass
class Stream:
    """Batches that are read once.

    Attributes:
        batches: Iterator over all batches. The arrays of features, and of labels, stand alone, or
            in lists or dictionaries.
        first: The first batch.
        limit: Integer, number of rows after which to stop, or `None`.
        watch: Function that is called with the number of rows that were read.
    """

    batches: Iterator[Batch]
    first: Batch
    limit: int | None = None
    watch: Callable[[int], None] = lambda rows: None

    @property
    def batch_size(self) -> int:
        """Rows of the first batch."""
        return num_rows(parts_of(self.first[0])[0])

    @property
    def example(self) -> Any:
        """The features of the first batch's first row, in the structure of the features."""
        return first_rows(self.first[0])


def as_stream(value: Any, *, limited: bool = False) -> Any:
    """Return a `Stream` for data that gives batches, and any other data unchanged.

    Args:
        value: The user's data.
        limited: Boolean, whether a number of rows will be set as the limit, so that the data
            need not have an end. Defaults to `False`.

    Raises:
        ValueError: If there is no batch, or no end, or the first batch is not usable.
        TypeError: If the value is an iterator that has a better form, such as an open file.
    """
    if isinstance(value, Stream) or not is_stream(value):
        return value
    if kind_of(value) is None and conversion(value):
        raise refused("x", ACCEPTED, value)  # such as an open file
    batches = unpacked_batches(iterator_of(value, limited=limited))
    first = next(batches, None)
    if first is None:
        rule = "a data set with at least one batch of rows; make a generator that was used anew"
        raise invalid("x", rule, Described("none"))
    return Stream(itertools.chain([first], batches), first)


def unpacked_batches(batches: Iterator[Any]) -> Iterator[Batch]:
    """Yield features, labels and sample weights of each batch with rows.

    An interrupt ends the wait for a batch.

    Raises:
        ValueError: If a batch is not usable.
    """
    while True:
        with interruptible():
            batch = next(batches, END)
        if batch is END:
            return
        parts = unpacked(batch)
        if num_rows(parts_of(parts[0])[0]):
            yield parts


def iterator_of(value: Any, *, limited: bool) -> Iterator[Any]:
    """Return an iterator over the batches.

    Raises:
        ValueError: If they have no end and are not limited, or are ragged, sparse or single rows.
    """
    kind = kind_of(value)
    if kind == "tf.data":
        check_elements(value.element_spec)
        check_end(limited or int(value.cardinality()) != INFINITE)
        return iter(value.as_numpy_iterator())
    if kind == "PyDataset":
        count = value.num_batches
        check_end(limited or count is not None)
        numbers = itertools.count() if count is None else range(count)
        return (value[number] for number in numbers)
    return iter(value)


def check_end(has_end: bool) -> None:
    """Refuse a data set without an end.

    Raises:
        ValueError: If it has none.
    """
    if not has_end:
        rule = (
            "a data set with an end, such as `dataset.take(100)`, or used with `steps_per_epoch`, "
            "`validation_steps` or `steps`: it is read once, into files"
        )
        raise invalid("x", rule, Described("an infinite data set"))


def check_elements(spec: Any) -> None:
    """Refuse a `tf.data.Dataset` whose elements are not batches of dense tensors.

    Raises:
        ValueError: If they are not.
    """
    if isinstance(spec, Mapping):
        spec = tuple(spec.values())
    if isinstance(spec, tuple | list):
        for part in spec:
            check_elements(part)
        return
    advice = {"RaggedTensorSpec": ".to_tensor()", "SparseTensorSpec": "tf.sparse.to_dense"}
    kind = type(spec).__name__
    if kind in advice:
        rule = f"a data set of dense tensors: convert them in `dataset.map` with `{advice[kind]}`"
        raise invalid("x", rule, Described(f"a data set with a {kind}"))
    if getattr(getattr(spec, "shape", None), "rank", None) == 0:
        rule = "a data set of batches: call `dataset.batch(32)`"
        raise invalid("x", rule, Described("a data set of single rows"))


def adapt_stream(
    spark: SparkSession, x: Stream, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> ArrayExamples:
    """Read all batches, and make examples from their rows, in the same order.

    Raises:
        ValueError: If there are labels or weights beside the batches, if a batch does not fit
            `spec`, or if rows have different shapes.
    """
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            rule = "`None` for a data set of batches, which contain it"
            raise invalid(name, rule, Described(shown(value)))
    rows = stored(x, spec)
    return adapt_arrays(
        spark,
        structured(rows.x, spec.inputs),
        structured(rows.y, spec.targets) if rows.y else None,
        structured(rows.sample_weight, spec.targets) if rows.sample_weight else None,
        spec,
        columns,
    )


def structured(arrays: Sequence[Features], specs: Sequence[ArraySpec]) -> Any:
    """Return arrays as a dictionary by the names of their specs, or the only array itself."""
    names = [spec.name for spec in specs]
    return arrays[0] if len(arrays) == 1 else dict(zip(names, arrays, strict=True))


def stored(stream: Stream, spec: InputSpec) -> Chunk:
    """Write all rows to files, map these, and delete them.

    Returns:
        `Chunk` of all rows.
    """
    made = temporary.Folder(temporary.ARRAYS)
    folder = str(made.path)
    try:
        writer = ShardWriter(folder, spec)
        try:
            for chunk in chunks_of(stream, spec):
                writer.write(chunk)
                stream.watch(writer.num_examples)
        finally:
            writer.close()
        handle = writer.handle(0, folder)
        groups = (handle.x, handle.y, handle.sample_weight)
        read = partial(mapped_rows, folder, handle.num_examples)
        return Chunk(*(list(map(read, group)) for group in groups))
    finally:
        made.remove()


def mapped_rows(folder: str, count: int, array: StoredArray) -> Any:
    """Map an array of numbers from its files; read one of text, or of sparse rows without any."""
    if array.is_text or not all(array.files.values()):
        return read_ranges(folder, array, [(0, count)])
    paths = [os.path.join(folder, file) for file in array.files]
    if array.entries is None:
        return np.asarray(np.memmap(paths[0], array.dtype, "r", shape=(count, *array.shape)))
    kinds: list[np.dtype] = [np.dtype(array.dtype), POSITION, START]
    pairs = zip(paths, kinds, strict=True)
    data, indices, indptr = (np.asarray(np.memmap(path, kind, "r")) for path, kind in pairs)
    return SparseRows(data, indices, indptr, array.shape)


def chunks_of(stream: Stream, spec: InputSpec) -> Iterator[Chunk]:
    """Yield the batches in the shapes and dtypes of a spec, up to the stream's limit.

    Raises:
        ValueError: If a batch does not fit the spec, or has no labels although the model needs
            them.
    """
    done = 0
    for x, y, sample_weight in stream.batches:
        if is_row(x, spec):
            raise single_rows()
        if y is None and spec.targets:
            rule = "data whose batches are (x, y) or (x, y, sample_weight)"
            raise invalid("x", rule, Described("a batch of features alone"))
        if not spec.targets:  # as for a prediction
            y = sample_weight = None
        rows = chunk_of(x, y, sample_weight, spec)
        if stream.limit is not None:
            rows = rows.rows(0, stream.limit - done)
        # Rows are kept in the model's dtype, or their own if it is smaller.
        yield mapped(rows, spec, partial(narrowed, floatx=spec.floatx), None, done)
        done += rows.num_examples
        if stream.limit is not None and done >= stream.limit:
            return
