"""One-shot averaging: replicas train apart from each other, and one average ends the fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kspark.optimizers.base import SYNCHRONOUS, MergeContext, ServerOptimizer
from kspark.optimizers.blocks import blocks


class OneShot(ServerOptimizer):
    """One-shot averaging: the mean of models that were trained independently of each other.

    Replica k has its own weights `x_k` from the beginning to the end of a `fit`. The global
    weights `c` are their mean after each round, and replicas never take them over:

    ```
    c <- c + sum_k share_k (x_k - c) = sum_k share_k x_k,   x_k <- x_k
    ```

    So the weights after `fit` are those of a single average at its end, the paper's Algorithm 3
    and the synchronous mode of Elephas. The means of the epochs before are for validation and
    callbacks; nothing is trained from them. Variables that are not trained, such as the statistics
    of `BatchNormalization`, are averaged after each round, as with all rules.

    Shards whose rows differ much train weights whose mean may fit none of them. `Average`, which
    starts each epoch from the mean, is the better choice then.

    Sign: `gap = x_k - c`, with that sign a delta, is added to the centre.

    Modes: synchronous, except with `frequency="batch"`, which merges gradients.

    Example:

    ```python
    spark_model = SparkModel(model, server_optimizer="one_shot")
    ```

    Reference:
        Zinkevich, Weimer, Li, Smola, 2010, "Parallelized Stochastic Gradient
        Descent", Advances in Neural Information Processing Systems 23,
        Algorithm 3.
    """

    modes = frozenset((SYNCHRONOUS,))
    refusal = "its average belongs to the end of an epoch, at which all replicas meet"
    keeps_replica_weights = True

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Move the centre to the mean of the replicas.

        Args:
            weights: Vector, the centre, changed in place.
            delta: Vector, the mean of the replicas' weights minus `weights`.
            context: `MergeContext`.
        """
        share = float(context.share)
        for centre, gap in blocks(weights, delta):
            centre += share * gap

    def replica_update(
        self,
        local: np.ndarray,
        gap: np.ndarray,
        start: np.ndarray,
        slots: Mapping[str, np.ndarray],
        context: MergeContext,
    ) -> None:
        """Leave the weights of a replica as they are."""
