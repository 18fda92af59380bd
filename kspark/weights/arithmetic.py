"""Arithmetic on flat vectors of weights: deltas, and means weighted by examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from kspark.errors import AggregationError, IncompatibleDeltaError

PIECE = 32 * 1024
"""Elements of a long vector that are processed at a time, so that temporaries stay in the cache."""


def compute_delta(new: np.ndarray, old: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Compute `new - old`, written into `out` if given (which may be `new` or `old`).

    Raises:
        IncompatibleDeltaError: If shapes or dtypes differ. Nothing is broadcast.
    """
    same_kind(new, old)
    return np.subtract(new, old, out=out)


def apply_delta(weights: np.ndarray, delta: np.ndarray, scale: float = 1.0) -> None:
    """Add `scale * delta` to `weights` in place.

    Raises:
        IncompatibleDeltaError: If shapes or dtypes differ. Nothing is broadcast.
    """
    same_kind(delta, weights)
    if scale != 1.0:
        delta = delta * weights.dtype.type(scale)
    np.add(weights, delta, out=weights)


def same_kind(left: np.ndarray, right: np.ndarray) -> None:
    """Check that two vectors have the same shape and dtype.

    Raises:
        IncompatibleDeltaError: If they differ.
    """
    if left.shape != right.shape or left.dtype != right.dtype:
        raise IncompatibleDeltaError(
            f"Shape {left.shape} and dtype {left.dtype} do not match "
            f"shape {right.shape} and dtype {right.dtype}."
        )


class WeightedMean:
    """A running weighted mean that keeps one vector in memory.

    It sums in float64, so that the mean of k identical vectors is that vector. The order of `add`
    changes the result only by rounding. Callers that guarantee identical bytes add vectors in the
    order of the shards.

    Attributes:
        total: Float, sum of the weights so far.
        count: Integer, number of vectors with a weight above zero.
    """

    def __init__(self) -> None:
        self._sum: np.ndarray | None = None
        self._dtype = np.dtype("float32")
        self.total = 0.0
        self.count = 0

    def add(self, vector: np.ndarray, weight: float) -> None:
        """Add one vector. A weight of zero adds nothing.

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
        """Return the mean, in the dtype of the first vector.

        Raises:
            AggregationError: If no vector with a weight above zero was added.
        """
        if self._sum is None:
            raise AggregationError("There is nothing to average, because every weight is zero.")
        mean = np.empty(self._sum.shape, self._dtype)
        total, values = self._sum.reshape(-1), mean.reshape(-1)
        for part in pieces(total.size):
            values[part] = total[part] / self.total
        return mean


def pieces(size: int) -> Iterator[slice]:
    """Divide `size` elements into consecutive slices of at most `PIECE` elements."""
    for start in range(0, size, PIECE):
        yield slice(start, min(start + PIECE, size))


def weighted_mean(pairs: Iterable[tuple[np.ndarray, float]]) -> np.ndarray:
    """Return the mean of pairs of a vector and its weight. See `WeightedMean`."""
    mean = WeightedMean()
    for vector, weight in pairs:
        mean.add(vector, weight)
    return mean.result()


def mean_in_order(
    pairs: Iterable[tuple[np.ndarray, float]], out: np.ndarray | None = None
) -> np.ndarray:
    """Return the mean of pairs of a vector and its weight, computed in the vectors' dtype.

    The same pairs in the same order give the same bytes, whoever computes the mean.

    Args:
        pairs: Iterable of a vector and its weight. Vectors without weight are ignored.
        out: Vector to write to, none of `pairs`. Defaults to `None`, a new one.

    Raises:
        AggregationError: If no vector has a weight above zero.
    """
    weighed = [(vector, weight) for vector, weight in pairs if weight > 0]
    total = sum(weight for _, weight in weighed)
    if not total:
        raise AggregationError("There is nothing to average, because every weight is zero.")
    factors = [vector.dtype.type(weight / total) for vector, weight in weighed]
    first = weighed[0][0]
    mean = np.empty_like(first) if out is None else out
    for part in pieces(first.size):
        np.multiply(first[part], factors[0], out=mean[part])
        for (vector, _), factor in zip(weighed[1:], factors[1:], strict=True):
            mean[part] += vector[part] * factor
    return mean
