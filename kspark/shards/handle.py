"""Describe a spooled shard as plain data: where its files are and what they contain."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from kspark.shards.sparse import POSITION
from kspark.shards.spec import BYTES, RAGGED, TEXT

INDICES, STARTS = ".indices", ".starts"
"""What is added to the name of the file of sparse rows' entries, for the names of the others."""


@dataclass(frozen=True)
class StoredArray:
    """One array of a shard on disk.

    Attributes:
        name: String, name of the input or target.
        dtype: String, numpy dtype name, `"string"`, `"bytes"` or `"ragged"`.
        shape: Tuple of integers, shape of one example in the data.
        file: String, file name inside the shard's directory. Sparse rows have further files.
        nbytes: Integer, size of the file, or of all files.
        entries: Integer, number of entries of `SparseRows`. Defaults to `None`: rows are dense.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    nbytes: int
    entries: int | None = None

    @property
    def files(self) -> dict[str, int]:
        """The sizes of all files of the array by their names."""
        if self.entries is None:
            return {self.file: self.nbytes}
        values = self.entries * np.dtype(self.dtype).itemsize
        indices = self.entries * POSITION.itemsize
        starts = self.nbytes - values - indices
        return {self.file: values, self.file + INDICES: indices, self.file + STARTS: starts}

    @property
    def items(self) -> int:
        """Elements per example."""
        return prod(self.shape)

    @property
    def is_text(self) -> bool:
        """Whether the elements are Python objects: strings, bytes, or rows of different shapes."""
        return self.dtype in (TEXT, BYTES, RAGGED)


@dataclass(frozen=True)
class LabelStats:
    """Statistics of one target's labels, to check them against the loss before training.

    Attributes:
        minimum: Float, smallest finite label, or `None` if there is none.
        maximum: Float, largest finite label, or `None` if there is none.
        integral: Boolean, whether every finite label is a whole number.
        finite: Boolean, whether no label is NaN or infinite.
    """

    minimum: float | None = None
    maximum: float | None = None
    integral: bool = True
    finite: bool = True

    @classmethod
    def of(cls, labels: np.ndarray) -> LabelStats:
        """Compute the statistics of an array of numbers."""
        whole = labels.dtype.kind in "iub"
        finite = whole or bool(np.isfinite(labels).all())
        values = labels if finite else labels[np.isfinite(labels)]
        if values.size == 0:
            return cls(finite=finite)
        integral = whole or bool((values == np.trunc(values)).all())
        return cls(float(values.min()), float(values.max()), integral, finite)

    def merge(self, other: LabelStats) -> LabelStats:
        """Combine with the statistics of other labels of the same target."""
        lows = [v for v in (self.minimum, other.minimum) if v is not None]
        highs = [v for v in (self.maximum, other.maximum) if v is not None]
        return LabelStats(
            min(lows, default=None),
            max(highs, default=None),
            self.integral and other.integral,
            self.finite and other.finite,
        )


@dataclass(frozen=True)
class ShardHandle:
    """A spooled shard as plain data of a few hundred bytes, which Spark persists.

    Attributes:
        index: Integer, number of the partition.
        num_examples: Integer, rows; 0 for an empty partition, which has no arrays.
        path: String, directory of the files on `host`.
        host: String, host name of the executor that wrote them, for messages.
        nbytes: Integer, bytes on disk.
        x: Tuple of `StoredArray`, one per input.
        y: Tuple of `StoredArray`, one per target; empty without labels.
        sample_weight: Tuple of `StoredArray`.
        stats: Tuple of `LabelStats`, one per target; `None` for text.
        first_batch: Integer, rows of the first batch of a shard whose rows are not on disk, but
            come from a function of the user. Then the number of rows is not known, `num_examples`
            is 1, and the arrays and statistics are those of this batch. Defaults to `0`: the rows
            are on disk.
        mark: String, the mark of the executor that wrote them, see `kspark.shards.marks`. Defaults
            to `""`, no executor.
    """

    index: int
    num_examples: int
    path: str
    host: str
    nbytes: int
    x: tuple[StoredArray, ...] = ()
    y: tuple[StoredArray, ...] = ()
    sample_weight: tuple[StoredArray, ...] = ()
    stats: tuple[LabelStats | None, ...] = ()
    first_batch: int = 0
    mark: str = ""

    @property
    def is_streamed(self) -> bool:
        """Whether the rows come from a function of the user, and are not on disk."""
        return self.first_batch > 0

    @property
    def arrays(self) -> tuple[StoredArray, ...]:
        """All arrays: inputs, targets, sample weights."""
        return (*self.x, *self.y, *self.sample_weight)

    def to_json(self) -> bytes:
        """Encode the handle as UTF-8 JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ShardHandle:
        """Decode a handle, the inverse of `to_json`."""
        raw = json.loads(bytes(data))
        raw.update({group: _stored(raw[group]) for group in ("x", "y", "sample_weight")})
        raw["stats"] = tuple(None if s is None else LabelStats(**s) for s in raw["stats"])
        return cls(**raw)


def _stored(rows: list[dict[str, Any]]) -> tuple[StoredArray, ...]:
    return tuple(StoredArray(**{**row, "shape": tuple(row["shape"])}) for row in rows)


def merge_label_stats(handles: Iterable[ShardHandle]) -> tuple[LabelStats | None, ...]:
    """Merge the label statistics of several shards.

    Args:
        handles: Iterable of `ShardHandle`; empty shards are ignored.

    Returns:
        Tuple with one `LabelStats` per target (`None` for text), empty if no
        shard has labels.
    """
    merged: Sequence[LabelStats | None] = ()
    for handle in handles:
        merged = _merge(merged, handle.stats) if merged else handle.stats
    return tuple(merged)


def _merge(
    left: Sequence[LabelStats | None], right: Sequence[LabelStats | None]
) -> Sequence[LabelStats | None]:
    if not right:
        return left
    pairs = zip(left, right, strict=True)
    return [a.merge(b) if a is not None and b is not None else None for a, b in pairs]
