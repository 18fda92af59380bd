"""The flat vector of a model's weights.

Weights are sent and merged as one contiguous float vector. A `WeightSpec` describes which part of
the vector belongs to which variable:

* `trainable` weights come first, in Keras' order. The server optimizer updates them.
* `state` weights follow: non-trainable floating point weights, such as the statistics of
  `BatchNormalization`. They are merged by a weighted mean.
* `fixed` weights (integers, booleans, strings, RNG state) are not in the vector and are never
  merged.

The sign is **delta = new - old** everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod

import numpy as np

from kspark.errors import IncompatibleDeltaError

TRAINABLE = "trainable"
STATE = "state"
FIXED = "fixed"


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
    """The layout of a model's flat vector.

    Attributes:
        weights: Tuple of `Weight`, in the order of `model.weights`.
    """

    weights: tuple[Weight, ...]

    @cached_property
    def dtype(self) -> np.dtype:
        """`float64` if a merged weight is, else `float32`, which represents all smaller floats."""
        wide = any(w.dtype == "float64" for w in self.weights if w.role != FIXED)
        return np.dtype("float64" if wide else "float32")

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Positions in `weights`, in the order of the vector."""
        trainable = [i for i, w in enumerate(self.weights) if w.role == TRAINABLE]
        state = [i for i, w in enumerate(self.weights) if w.role == STATE]
        return (*trainable, *state)

    @property
    def trainable(self) -> tuple[Weight, ...]:
        """The trainable weights, in the order of the vector."""
        return tuple(w for w in self.weights if w.role == TRAINABLE)

    @cached_property
    def trainable_size(self) -> int:
        """Elements of the vector's first part, the trainable weights."""
        return sum(w.size for w in self.trainable)

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
        """Write the merged weights of `arrays` into one vector.

        Args:
            arrays: Sequence of arrays, one per entry of `weights`, in Keras' order.
            out: Vector of `size` elements to write into. Defaults to `None`, a new vector.

        Returns:
            The vector.

        Raises:
            IncompatibleDeltaError: If an array or `out` does not fit the spec.
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
        """Return views of `vector` by position in `weights`. Fixed weights have no view."""
        self.check(vector)
        return {i: vector[part].reshape(self.weights[i].shape) for i, part in self.parts}

    def check(self, vector: np.ndarray, what: str = "vector") -> None:
        """Check that a vector fits this spec.

        Raises:
            IncompatibleDeltaError: If the shape or dtype differs.
        """
        if vector.shape != (self.size,) or vector.dtype != self.dtype:
            raise IncompatibleDeltaError(
                f"The {what} has shape {vector.shape} and dtype {vector.dtype}, "
                f"expected ({self.size},) and {self.dtype}."
            )

    def to_json(self) -> str:
        """Return the spec as JSON."""
        return json.dumps([asdict(w) for w in self.weights])

    @classmethod
    def from_json(cls, text: str) -> WeightSpec:
        """Read a spec from the JSON of `to_json`."""
        rows = json.loads(text)
        return cls(tuple(Weight(r["name"], tuple(r["shape"]), r["dtype"], r["role"]) for r in rows))

    def digest(self) -> bytes:
        """Return 32 bytes that differ if the specs differ."""
        return hashlib.sha256(self.to_json().encode()).digest()
