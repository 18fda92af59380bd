"""Downpour SGD."""

from __future__ import annotations

from kspark.optimizers.arguments import positive
from kspark.optimizers.base import ASYNCHRONOUS, HOGWILD, MergeContext
from kspark.optimizers.scaled import ScaledDelta


class Downpour(ScaledDelta):
    """Downpour SGD: every delta is applied whole, as it comes.

    ```
    replica:  delta = sum of its local steps since the last pull
    push:     w <- w + learning_rate delta
    ```

    With k replicas the weights move up to k times as far as one replica would
    take them, so this needs few local batches between exchanges, and a small
    learning rate on the replicas or here. `Average` is the rule that weighs
    deltas; `learning_rate=1/k` comes near it.

    The paper's Adagrad on the server is the rule `Adagrad`.

    Sign: `delta = new - old`, the sum of `-eta * gradient`, is added.

    Modes: asynchronous, hogwild.

    Example:

    ```python
    from kspark.optimizers import Downpour

    spark_model = SparkModel(model, mode="asynchronous", server_optimizer=Downpour())
    ```

    Args:
        learning_rate: Float > 0. Defaults to `1.0`.

    Reference:
        Dean et al., 2012, "Large Scale Distributed Deep Networks", NIPS,
        section 4.1.
    """

    modes = frozenset((ASYNCHRONOUS, HOGWILD))
    refusal = "it takes each delta whole as it comes; a round's deltas are averaged before"

    def __init__(self, learning_rate: float = 1.0) -> None:
        super().__init__()
        self.learning_rate = positive("learning_rate", learning_rate)

    def scale(self, context: MergeContext) -> float:
        """The whole delta, times the learning rate."""
        return self.learning_rate
