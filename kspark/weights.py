"""Weights as one flat vector, and the arithmetic on it.

A model's weights travel and merge as **one contiguous float vector**. Which
part of it belongs to which variable is the `WeightSpec`'s knowledge:

* `trainable` weights come first, in Keras order; the server optimizer moves them;
* `state` weights follow (floating point, not trainable: BatchNorm statistics,
  for instance); they take the plain weighted mean;
* `fixed` weights (integers, booleans, strings, RNG state) are not in the
  vector and are never merged.

Sign: **delta = new - old**, everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod

import numpy as np

from kspark.errors import AggregationError, IncompatibleDeltaError

TRAINABLE = "trainable"
STATE = "state"
FIXED = "fixed"

PIECE = 32 * 1024
"""Elements of a long vector that are worked on at once: their temporaries stay in the cache."""


@dataclass(frozen=True)
class Weight:
    """One variable of a model.

    Attributes:
        name: String, the variable's path in the model.
        shape: Tuple of integers.
        dtype: String, Keras dtype name.
        role: `"trainable"`, `"state"` or `"fixed"`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class WeightSpec:
    """What the flat vector of a model looks like.

    Attributes:
        weights: Tuple of `Weight`, in the order of `model.weights`.
    """

    weights: tuple[Weight, ...]

    @cached_property
    def dtype(self) -> np.dtype:
        """`float64` if any merged weight is, else `float32`, which holds all smaller floats."""
        wide = any(w.dtype == "float64" for w in self.weights if w.role != FIXED)
        return np.dtype("float64" if wide else "float32")

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Positions in `weights` of the vector's parts, in the order of the vector."""
        trainable = [i for i, w in enumerate(self.weights) if w.role == TRAINABLE]
        state = [i for i, w in enumerate(self.weights) if w.role == STATE]
        return (*trainable, *state)

    @cached_property
    def trainable_size(self) -> int:
        """Elements of the vector's first part, which the server optimizer moves."""
        return sum(w.size for w in self.weights if w.role == TRAINABLE)

    @cached_property
    def size(self) -> int:
        """Elements of the whole vector."""
        return sum(self.weights[i].size for i in self.order)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole vector."""
        return self.size * self.dtype.itemsize

    @cached_property
    def parts(self) -> tuple[tuple[int, slice], ...]:
        """Pairs of (position in `weights`, slice of the vector), in vector order."""
        parts, start = [], 0
        for i in self.order:
            stop = start + self.weights[i].size
            parts.append((i, slice(start, stop)))
            start = stop
        return tuple(parts)

    def flatten(self, arrays: Sequence[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        """Write the merged weights among `arrays` (Keras order) into one vector.

        Args:
            arrays: Sequence of arrays, one per entry of `weights`.
            out: Optional vector of `size` elements to write into.

        Returns:
            The vector.

        Raises:
            IncompatibleDeltaError: If a shape differs from the spec, or `out` does.
        """
        if len(arrays) != len(self.weights):
            raise IncompatibleDeltaError(f"Got {len(arrays)} arrays, expected {len(self.weights)}.")
        if out is not None:
            self.check(out, "out vector")
        vector = np.empty(self.size, self.dtype) if out is None else out
        for i, part in self.parts:
            array, weight = np.asarray(arrays[i]), self.weights[i]
            if array.shape != weight.shape:
                raise IncompatibleDeltaError(
                    f"Weight {weight.name!r} has shape {array.shape}, expected {weight.shape}."
                )
            vector[part] = array.reshape(-1)
        return vector

    def unflatten(self, vector: np.ndarray) -> dict[int, np.ndarray]:
        """Views into `vector`, by position in `weights`. Fixed weights have none."""
        self.check(vector)
        return {i: vector[part].reshape(self.weights[i].shape) for i, part in self.parts}

    def check(self, vector: np.ndarray, what: str = "vector") -> None:
        """Refuse a vector that is not exactly of this spec.

        Raises:
            IncompatibleDeltaError: If the shape or dtype differs.
        """
        if vector.shape != (self.size,) or vector.dtype != self.dtype:
            raise IncompatibleDeltaError(
                f"The {what} has shape {vector.shape} and dtype {vector.dtype}, "
                f"expected ({self.size},) and {self.dtype}."
            )

    def to_json(self) -> str:
        """The spec as JSON."""
        return json.dumps([asdict(w) for w in self.weights])

    @classmethod
    def from_json(cls, text: str) -> WeightSpec:
        """The inverse of `to_json`."""
        rows = json.loads(text)
        return cls(tuple(Weight(r["name"], tuple(r["shape"]), r["dtype"], r["role"]) for r in rows))

    def digest(self) -> bytes:
        """32 bytes that two specs share only if they describe the same vector."""
        return hashlib.sha256(self.to_json().encode()).digest()


def delta(new: np.ndarray, old: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """`new - old`, into `out` if given (which may be `new` or `old`).

    Raises:
        IncompatibleDeltaError: If shapes or dtypes differ; nothing is broadcast.
    """
    same_kind(new, old)
    return np.subtract(new, old, out=out)


def apply_delta(weights: np.ndarray, change: np.ndarray, scale: float = 1.0) -> None:
    """`weights += scale * change`, in place.

    Raises:
        IncompatibleDeltaError: If shapes or dtypes differ; nothing is broadcast.
    """
    same_kind(change, weights)
    if scale != 1.0:
        change = change * weights.dtype.type(scale)
    np.add(weights, change, out=weights)


def same_kind(left: np.ndarray, right: np.ndarray) -> None:
    """Refuse two vectors that differ in shape or dtype."""
    if left.shape != right.shape or left.dtype != right.dtype:
        raise IncompatibleDeltaError(
            f"Shape {left.shape} and dtype {left.dtype} do not match "
            f"shape {right.shape} and dtype {right.dtype}."
        )


class WeightedMean:
    """A running weighted mean that never holds more than one vector.

    Sums in float64, so that the mean of k identical vectors is that vector.
    The result depends on the order of `add` only by rounding; callers that
    promise identical bytes add in the order of the shards.
    """

    def __init__(self) -> None:
        self._sum: np.ndarray | None = None
        self._dtype = np.dtype("float32")
        self.total = 0.0
        self.count = 0

    def add(self, vector: np.ndarray, weight: float) -> None:
        """Take in one vector. A weight of zero adds nothing.

        Raises:
            AggregationError: If the weight is negative or not finite.
            IncompatibleDeltaError: If the shape differs from the first vector's.
        """
        if not (weight >= 0 and np.isfinite(weight)):
            raise AggregationError(f"A weight must be finite and >= 0. Received: weight={weight}")
        if weight == 0:
            return
        if self._sum is None:
            self._sum = np.zeros(vector.shape, np.float64)
            self._dtype = vector.dtype
        if vector.shape != self._sum.shape:
            raise IncompatibleDeltaError(
                f"Shape {vector.shape} does not match shape {self._sum.shape}."
            )
        total, values = self._sum.reshape(-1), vector.reshape(-1)
        for part in pieces(total.size):
            total[part] += np.multiply(values[part], weight, dtype=np.float64)
        self.total += weight
        self.count += 1

    def result(self) -> np.ndarray:
        """The mean, in the dtype of what was added.

        Raises:
            AggregationError: If nothing with a weight above zero was added.
        """
        if self._sum is None:
            raise AggregationError("There is nothing to average: every weight was zero.")
        mean = np.empty(self._sum.shape, self._dtype)
        total, values = self._sum.reshape(-1), mean.reshape(-1)
        for part in pieces(total.size):
            values[part] = total[part] / self.total
        return mean


def pieces(size: int) -> Iterator[slice]:
    """Consecutive parts of so many elements."""
    for start in range(0, size, PIECE):
        yield slice(start, min(start + PIECE, size))


def weighted_mean(pairs: Iterable[tuple[np.ndarray, float]]) -> np.ndarray:
    """Mean of vectors, each with its weight. See `WeightedMean`."""
    mean = WeightedMean()
    for vector, weight in pairs:
        mean.add(vector, weight)
    return mean.result()
