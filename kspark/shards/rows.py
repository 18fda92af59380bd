"""Rows in memory: `Chunk`, to be written to disk, and `Window`, to be passed to the model."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np

from kspark.shards.files import common_dtype
from kspark.shards.ragged import as_rows
from kspark.shards.sparse import SparseRows, dense, dense_nbytes, memory_of, stacked

Block = tuple[list[Any], list[np.ndarray], list[np.ndarray]]
"""A chunk as plain tuples, lists and arrays. Workers without kspark cannot unpickle its classes."""


@dataclass
class Chunk:
    """Rows in memory, columnar. All arrays have the same length.

    Attributes:
        x: List of arrays or `SparseRows`, one per input.
        y: List of arrays, one per target; empty without labels.
        sample_weight: List of arrays: none, one, or one per target.
    """

    x: list[Any]
    y: list[np.ndarray] = field(default_factory=list)
    sample_weight: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of_block(cls, block: Block) -> Chunk:
        """Make a chunk of what `block` returned."""
        x, y, sample_weight = block
        return cls([SparseRows(*a) if isinstance(a, tuple) else a for a in x], y, sample_weight)

    @property
    def block(self) -> Block:
        """The chunk in a form that Spark can send between workers."""
        x = [a.parts if isinstance(a, SparseRows) else a for a in self.x]
        return x, self.y, self.sample_weight

    @property
    def arrays(self) -> list[Any]:
        """All arrays: inputs, targets, sample weights."""
        return [*self.x, *self.y, *self.sample_weight]

    @property
    def num_examples(self) -> int:
        """Number of rows."""
        return len(self.x[0]) if self.x else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; for text and bytes, an estimate, see `memory_of`."""
        return sum(map(memory_of, self.arrays))

    def rows(self, start: int, stop: int) -> Chunk:
        """Return views of rows `[start, stop)`."""
        return self.taken(slice(start, stop))

    def taken(self, rows: np.ndarray | slice) -> Chunk:
        """Return the rows of some numbers, in their order."""
        return Chunk(
            [a[rows] for a in self.x],
            [a[rows] for a in self.y],
            [a[rows] for a in self.sample_weight],
        )

    def pieces(self, nbytes: int) -> Iterator[Chunk]:
        """Yield views of consecutive rows, each of about `nbytes` bytes and at least one row."""
        size = max(1, nbytes * self.num_examples // max(1, self.nbytes))
        for start in range(0, self.num_examples, size):
            yield self.rows(start, start + size)

    def dense_pieces(self, nbytes: int) -> Iterator[Chunk]:
        """Yield consecutive rows as dense arrays, as `pieces` does."""
        size = max(1, nbytes * self.num_examples // max(1, sum(map(dense_nbytes, self.arrays))))
        for start in range(0, self.num_examples, size):
            rows = self.rows(start, start + size)
            yield Chunk(list(map(dense, rows.x)), rows.y, rows.sample_weight)

    def window(self) -> Window:
        """Return the rows as a `Window` in the same order."""
        return Window(self.x, self.y, self.sample_weight)


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Return the rows of chunks in one. They may have different dtypes, see `common_dtype`."""
    x, y, weights = (
        [concatenated(arrays) for arrays in zip(*groups, strict=True)]
        for groups in (
            [chunk.x for chunk in chunks],
            [chunk.y for chunk in chunks],
            [chunk.sample_weight for chunk in chunks],
        )
    )
    return Chunk(x, y, weights)


def concatenated(arrays: Sequence[Any]) -> Any:
    """Return the rows of arrays in one array of their common dtype; sparse if one of them is.

    If the rows have different shapes, the array has one object per row.
    """
    if len({(array.dtype == object, array.shape[1:]) for array in arrays}) > 1:
        return np.concatenate([as_rows(dense(array)) for array in arrays])
    dtype = reduce(common_dtype, (array.dtype for array in arrays))
    if any(isinstance(array, SparseRows) for array in arrays):
        return stacked(arrays, dtype)
    return np.concatenate([array.astype(dtype, copy=False) for array in arrays])


@dataclass
class Window:
    """Rows of a shard in memory, with the order to train on them.

    Batch `i` of a pass over the shard is batch `i - first_batch` of the window
    that contains it. The length of every window of a pass but the last is a
    multiple of the batch size, so that no batch extends over two windows.

    Attributes:
        x: List of arrays or `SparseRows`, one per input.
        y: List of arrays, one per target; empty without labels.
        sample_weight: List of arrays: none, one, or one per target.
        order: Integer vector, row numbers in the order to use them, or `None`
            for the order of the arrays. Rows that it does not name are not used.
        key: Identifies the arrays' content, or `None` if the same rows will not
            come again. Windows with the same key have equal arrays and differ in
            `order` only, so that tensors made of the arrays can be cached.
        first_batch: Integer, number of batches of the pass before this window.
    """

    x: list[Any]
    y: list[np.ndarray] = field(default_factory=list)
    sample_weight: list[np.ndarray] = field(default_factory=list)
    order: np.ndarray | None = None
    key: tuple[Hashable, ...] | None = None
    first_batch: int = 0

    @property
    def num_examples(self) -> int:
        """Number of rows to use."""
        if self.order is not None:
            return len(self.order)
        return len(self.x[0]) if self.x else 0

    @property
    def numbers(self) -> np.ndarray:
        """The numbers of the rows to use, in their order."""
        return np.arange(self.num_examples) if self.order is None else self.order

    def part(self, batch_size: int, start: int, stop: int) -> Window:
        """Return a window of the same arrays with a part of the batches.

        Args:
            batch_size: Integer.
            start: Integer, first batch, counted as `first_batch` is.
            stop: Integer, the batch after the last one.
        """
        low, high = (batch_size * (n - self.first_batch) for n in (start, stop))
        return replace(self, order=self.numbers[low:high], first_batch=start)

    def with_class_weight(self, class_weight: Mapping[int, float]) -> Window:
        """Weight each row by the class of its label.

        Args:
            class_weight: Mapping from class to weight. Other classes have weight 1.

        Returns:
            A `Window` of the same rows with one array of sample weights: the
            class weights, multiplied by the existing sample weights if any.

        Raises:
            ValueError: If there is not exactly one target.
        """
        if len(self.y) != 1:
            raise ValueError(
                "`class_weight` must be used with a model of one target. "
                f"Received: {len(self.y)} targets"
            )
        weights = class_weights(self.y[0], class_weight)
        if self.sample_weight:
            given = self.sample_weight[0]
            weights = given * weights.reshape(-1, *[1] * (given.ndim - 1)).astype(given.dtype)
        key = None if self.key is None else (*self.key, "class_weight")
        return replace(self, sample_weight=[weights], key=key)


def num_batches(num_examples: int, batch_size: int) -> int:
    """Batches of so many examples; the last one may be short."""
    return -(-num_examples // batch_size)


def class_weights(labels: np.ndarray, class_weight: Mapping[int, float]) -> np.ndarray:
    """Look up the weight of each row's class. The classes are determined as in Keras.

    Args:
        labels: Array of class numbers of shape `(n,)` or `(n, 1)`, or of one value
            per class; the class is then the index of the largest value.
        class_weight: Mapping from class to weight. Other classes have weight 1.

    Returns:
        Vector of `n` float32 weights.
    """
    if labels.ndim > 1:
        labels = labels[..., 0] if labels.shape[-1] == 1 else labels.argmax(axis=-1)
    classes, places = np.unique(np.round(labels).astype(np.int64), return_inverse=True)
    table = np.array([class_weight.get(int(c), 1.0) for c in classes], np.float32)
    return table[places.reshape(labels.shape)]
