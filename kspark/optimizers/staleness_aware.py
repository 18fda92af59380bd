"""Deltas divided by their staleness."""

from __future__ import annotations

from kspark.optimizers.arguments import positive
from kspark.optimizers.base import ASYNCHRONOUS, MergeContext
from kspark.optimizers.scaled import ScaledDelta


class StalenessAware(ScaledDelta):
    """Staleness-aware asynchronous SGD, with the scale of DynSGD.

    ```
    staleness = version now - version the replica started from
    push:  w <- w + learning_rate delta / (1 + staleness)
    ```

    Among k replicas of equal speed, each push is k - 1 versions stale and has the factor 1/k, so
    the rule needs no share of the examples. A replica that is ten times slower than the others is
    ten times as stale, and its pushes have a factor that is ten times smaller.

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
        divided by the staleness, which starts at one there. Here it starts at
        zero, so one is added.
        Jiang, Cui, Zhang, Yu, 2017, "Heterogeneity-aware Distributed Parameter
        Servers", SIGMOD (DynSGD).
    """

    modes = frozenset((ASYNCHRONOUS,))
    refusal = (
        "it needs the staleness, which rounds do not have and pushes without a lock do not know"
    )
    differs_by_push = True

    def __init__(self, learning_rate: float = 1.0) -> None:
        super().__init__()
        self.learning_rate = positive("learning_rate", learning_rate)

    def scale(self, context: MergeContext) -> float:
        """Return the learning rate divided by `1 + staleness`."""
        return self.learning_rate / (1 + context.staleness)
