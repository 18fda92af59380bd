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

    As long as fewer than half of the replicas send something else than they
    should, NaN and infinity too, no weight moves out of the range of the others'
    values. It is the trimmed mean that leaves out as many as it can.

    All replicas count the same, whatever their number of examples (those without
    any are left out): what a replica says about itself is not believed. The
    driver holds all deltas of a round at once.

    Non-trainable float weights (moving statistics) do not pass through any rule: they
    become the plain weighted mean, which one replica's NaN spoils.

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
    refusal = "it compares all replicas' deltas with each other, and a push brings one"
    needs_all_deltas = True

    def reduce(self, deltas: Sequence[np.ndarray], num_examples: Sequence[float]) -> np.ndarray:
        """The median of the deltas that have examples."""
        counted = with_examples(deltas, num_examples)
        return trimmed_mean(counted, (len(counted) - 1) // 2)
