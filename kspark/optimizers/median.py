"""The coordinate-wise median."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kspark.optimizers.average import Average
from kspark.optimizers.base import SYNCHRONOUS
from kspark.optimizers.trimmed_mean import trimmed_mean, with_examples


class Median(Average):
    """The median of each coordinate.

    ```
    d_j = median of the deltas' values in coordinate j
          (of an even number: the mean of the two in the middle)
    w   <- w + d
    ```

    If fewer than half of the replicas send wrong values, including NaN and infinity, every weight
    stays within the range of the other replicas' values. The median is the trimmed mean that omits
    as many values as possible.

    All replicas with examples have the same weight, because their numbers of examples are not
    trusted. The driver keeps all deltas of a round in memory.

    No rule applies to non-trainable float weights, such as moving statistics. They are merged by a
    weighted mean, in which the NaN of one replica has an effect.

    Sign: `delta = new - old` is added.

    Modes: synchronous.

    Example:

    ```python
    from kspark.optimizers import Median

    spark_model = SparkModel(model, server_optimizer=Median())
    ```

    Reference:
        Yin, Chen, Ramchandran, Bartlett, 2018, "Byzantine-Robust Distributed
        Learning: Towards Optimal Statistical Rates",
        https://arxiv.org/abs/1803.01498, Definition 1 and Algorithm 1, option I.
    """

    modes = frozenset((SYNCHRONOUS,))
    refusal = "it compares the deltas of all replicas, but a push contains only one"
    needs_all_deltas = True

    def reduce(self, deltas: Sequence[np.ndarray], num_examples: Sequence[float]) -> np.ndarray:
        """Return the median of the deltas with examples."""
        counted = with_examples(deltas, num_examples)
        return trimmed_mean(counted, (len(counted) - 1) // 2)
