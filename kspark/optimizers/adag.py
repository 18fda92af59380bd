"""ADAG: deltas normalised by the number of local steps behind them."""

from __future__ import annotations

from kspark.optimizers.arguments import positive
from kspark.optimizers.base import ASYNCHRONOUS, HOGWILD, MergeContext
from kspark.optimizers.scaled import ScaledDelta


class ADAG(ScaledDelta):
    """Accumulated gradient normalization (AGN, first published as ADAG).

    ```
    replica:  delta = sum of its num_steps local steps since the last pull
    push:     w <- w + learning_rate delta / num_steps
    ```

    A push moves the weights by the replica's average step: in the direction of many batches, by
    the length of one. So many replicas do not overshoot, but a single replica is `num_steps`
    times slower than without this rule.

    Sign: `delta = new - old`, the sum of `-eta * gradient`, is added.

    Modes: asynchronous, hogwild.

    Example:

    ```python
    from kspark.optimizers import ADAG

    spark_model = SparkModel(model, mode="asynchronous", server_optimizer=ADAG())
    ```

    Args:
        learning_rate: Float > 0. Defaults to `1.0`.

    References:
        Hermans, 2017, "On Scalable Deep Learning and Parallelizing Gradient
        Descent", master's thesis, Maastricht University, chapter 4.
        Hermans, Spanakis, Möckel, 2017, "Accumulated Gradient Normalization",
        https://arxiv.org/abs/1710.02368.
    """

    modes = frozenset((ASYNCHRONOUS, HOGWILD))
    refusal = "it scales each delta by its number of steps, but a round averages the deltas first"
    differs_by_push = True

    def __init__(self, learning_rate: float = 1.0) -> None:
        super().__init__()
        self.learning_rate = positive("learning_rate", learning_rate)

    def scale(self, context: MergeContext) -> float:
        """Return the learning rate divided by `num_steps`."""
        return self.learning_rate / context.num_steps
