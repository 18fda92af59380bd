"""The plain average: federated averaging."""

from __future__ import annotations

from kspark.optimizers.base import MergeContext
from kspark.optimizers.scaled import ScaledDelta


class Average(ScaledDelta):
    """Federated averaging; the default.

    ```
    round:  w <- w + sum_k share_k delta_k        (the weighted mean of the replicas)
    push:   w <- w + share_k delta_k              (one delta at a time)
    share_k = examples of shard k / all examples
    ```

    The pushes of all shards add up to the update of one round. Without the factor, k deltas would
    move the weights k times as far.

    Sign: `delta = new - old` is added.

    Modes: all.

    Example:

    ```python
    from kspark.optimizers import Average

    spark_model = SparkModel(model, server_optimizer=Average())
    ```

    Reference:
        McMahan, Moore, Ramage, Hampson, Agüera y Arcas, 2017,
        "Communication-Efficient Learning of Deep Networks from Decentralized
        Data", https://arxiv.org/abs/1602.05629, Algorithm 1.
    """

    def scale(self, context: MergeContext) -> float:
        """Return the shard's share of all examples."""
        return context.share
