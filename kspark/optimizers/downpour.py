"""Downpour SGD."""

from __future__ import annotations

from kspark.optimizers.arguments import positive
from kspark.optimizers.base import ASYNCHRONOUS, HOGWILD, MergeContext
from kspark.optimizers.scaled import ScaledDelta


class Downpour(ScaledDelta):
    """Downpour SGD: every pushed delta is applied whole.

    ```
    replica:  delta = sum of its local steps since the last pull
    push:     w <- w + learning_rate delta
    ```

    With k replicas, the weights move up to k times as far as with one. So use few local batches
    between exchanges, and a small learning rate for the replicas or for this rule. `Average`
    weights the deltas instead, and `learning_rate=1/k` is close to it.

    For the paper's Adagrad on the server, use the rule `Adagrad`.

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
    refusal = "it applies each delta whole, but a round averages the deltas first"

    def __init__(self, learning_rate: float = 1.0) -> None:
        super().__init__()
        self.learning_rate = positive("learning_rate", learning_rate)

    def scale(self, context: MergeContext) -> float:
        """Return the learning rate."""
        return self.learning_rate
