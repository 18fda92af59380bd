"""The coordinate-wise trimmed mean."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from kspark.errors import AggregationError, invalid
from kspark.optimizers.arguments import number
from kspark.optimizers.average import Average
from kspark.optimizers.base import SYNCHRONOUS
from kspark.optimizers.blocks import blocks


class TrimmedMean(Average):
    """The mean of each coordinate without its largest and smallest values.

    ```
    U_j = the deltas' values in coordinate j, without the b largest and b smallest
    d_j = mean of U_j,   b = beta m rounded up, but less than m / 2
    w   <- w + d
    ```

    If at most b of m replicas send wrong values, including NaN and infinity, every weight stays
    within the range of the other replicas' values. Because b is rounded up, at least one value is
    omitted at each end from three replicas on, for every `beta`. With one or two replicas, none
    is.

    All replicas with examples have the same weight, because their numbers of examples are not
    trusted. The driver keeps all deltas of a round in memory.

    No rule applies to non-trainable float weights, such as moving statistics. They are merged by a
    weighted mean, in which the NaN of one replica has an effect.

    Sign: `delta = new - old` is added.

    Modes: synchronous.

    Example:

    ```python
    from kspark.optimizers import TrimmedMean

    spark_model = SparkModel(model, server_optimizer=TrimmedMean(beta=0.2))
    ```

    Args:
        beta: Float > 0 and < 0.5, fraction of the replicas to omit at each end. Defaults to `0.2`.

    Raises:
        TypeError: If `beta` is not a number.
        ValueError: If `beta` is out of range.

    Reference:
        Yin, Chen, Ramchandran, Bartlett, 2018, "Byzantine-Robust Distributed
        Learning: Towards Optimal Statistical Rates",
        https://arxiv.org/abs/1803.01498, Definition 2 and Algorithm 1, option II.
    """

    modes = frozenset((SYNCHRONOUS,))
    refusal = "it compares the deltas of all replicas, but a push contains only one"
    needs_all_deltas = True

    def __init__(self, beta: float = 0.2) -> None:
        super().__init__()
        self.beta = number("beta", beta, "a number > 0 and < 0.5")
        if not 0 < self.beta < 0.5:
            raise invalid("beta", "a number > 0 and < 0.5", beta)

    def num_trimmed(self, count: int) -> int:
        """Return how many of `count` values are omitted at each end.

        Args:
            count: Integer, number of deltas in a round.
        """
        wanted = ceil(round(self.beta * count, 9))  # `0.07 * 100` is above 7.
        return min(wanted, (count - 1) // 2)

    def reduce(self, deltas: Sequence[np.ndarray], num_examples: Sequence[float]) -> np.ndarray:
        """Return the trimmed mean of the deltas with examples."""
        counted = with_examples(deltas, num_examples)
        return trimmed_mean(counted, self.num_trimmed(len(counted)))


def with_examples(deltas: Sequence[np.ndarray], num_examples: Sequence[float]) -> list[np.ndarray]:
    """Return the deltas with examples.

    Raises:
        AggregationError: If no delta has examples.
    """
    counted = [d for d, n in zip(deltas, num_examples, strict=True) if n > 0]
    if not counted:
        raise AggregationError("There is nothing to merge, because no delta has examples.")
    return counted


def trimmed_mean(vectors: Sequence[np.ndarray], num_trimmed: int) -> np.ndarray:
    """Return the mean of each coordinate without the `num_trimmed` largest and smallest values.

    NaN counts as larger than all numbers.
    """
    merged = np.empty_like(vectors[0])
    last = len(vectors) - num_trimmed
    for out, *parts in blocks(merged, *vectors):
        values = np.stack(parts)
        values.sort(axis=0)  # 2 to 3 times as fast as `partition` from 8 vectors on.
        out[:] = values[num_trimmed:last].mean(axis=0, dtype=np.float64)
    return merged
