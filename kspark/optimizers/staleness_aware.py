"""Deltas scaled down by their staleness."""

from __future__ import annotations

from kspark.optimizers.arguments import positive
from kspark.optimizers.base import ASYNCHRONOUS, MergeContext
from kspark.optimizers.scaled import ScaledDelta


class StalenessAware(ScaledDelta):
    """Staleness-aware asynchronous SGD, as DynSGD scales it.

    ```
    staleness = version now - version the replica started from
    push:  w <- w + learning_rate delta / (1 + staleness)
    ```

    Among k replicas of equal speed each push is k - 1 versions stale, and counts
    1/k: no share of the examples is needed. A replica ten times slower than the
    others is ten times as stale and counts that much less.

    Sign: `delta = new - old` is added.

    Modes: asynchronous.

    Example:

    ```python
    from kspark.optimizers import StalenessAware

    spark_model = SparkModel(model, mode="asynchronous", server_optimizer=StalenessAware())
    ```

    Args:
        learning_rate: Float > 0. Defaults to `1.0`.

    References:
        Zhang, Gupta, Lian, Liu, 2015, "Staleness-aware Async-SGD for Distributed
        Deep Learning", https://arxiv.org/abs/1511.05950, the learning rate
        divided by the staleness (from one on; here by one more, so that it also
        holds at zero).
        Jiang, Cui, Zhang, Yu, 2017, "Heterogeneity-aware Distributed Parameter
        Servers", SIGMOD (DynSGD).
    """

    modes = frozenset((ASYNCHRONOUS,))
    refusal = "it goes by staleness, which rounds do not have and pushes without a lock cannot tell"
    differs_by_push = True

    def __init__(self, learning_rate: float = 1.0) -> None:
        super().__init__()
        self.learning_rate = positive("learning_rate", learning_rate)

    def scale(self, context: MergeContext) -> float:
        """One part in `1 + staleness`, times the learning rate."""
        return self.learning_rate / (1 + context.staleness)
