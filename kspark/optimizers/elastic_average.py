"""Elastic averaging: EASGD, and with momentum EAMSGD."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kspark.errors import invalid
from kspark.optimizers.arguments import decay, number
from kspark.optimizers.base import ASYNCHRONOUS, SYNCHRONOUS, MergeContext, ServerOptimizer
from kspark.optimizers.blocks import blocks


class ElasticAverage(ServerOptimizer):
    """Elastic averaging SGD: replicas keep their own weights, which are pulled to the global ones.

    Replica k has its own weights `x_k` and never takes over the global weights, the centre `c`. At
    an exchange, both move by the same amount:

    ```
    e_k = alpha_k (x_k - c),   alpha_k = rho share_k
    x_k <- x_k - e_k
    c   <- c + e_k             (a round: c <- c + sum_k e_k, all from the same c)
    ```

    A round computes `c <- (1 - rho) c + rho * (mean of x_k)`, the paper's equation 6. `fit` sets
    the model to the centre.

    The paper uses `alpha = eta * rho` for each of p replicas, and shows that `beta = p * alpha`
    determines the stability. `rho` is this product here, so it need not change with the learning
    rate or the number of workers. With equal shards, `alpha = rho / p`. The default is the paper's
    setting, beta = 0.9.

    With `momentum`, a replica continues to move in the direction of its last exchanges (EAMSGD).
    `d_k` is the change of its weights by the local batches:

    ```
    v_k <- momentum v_k + d_k
    x_k <- x_k - e_k                              (as above)
    training continues from x_k + momentum v_k    (Nesterov's point)
    ```

    With `frequency="batch"` and plain SGD on the replicas, `d_k` is `-eta * gradient`, and the rule
    is the paper's Algorithm 2. Otherwise several local batches replace a single step. For momentum
    within them, compile the model with `keras.optimizers.SGD(..., momentum=..., nesterov=True)`.
    With momentum m, a replica moves `1 / (1 - m)` times as far.

    An exchange uses the weights after the local batches. (In the paper, the next gradient is
    computed at the weights before the exchange.)

    Sign: `gap = x_k - c`, with that sign a delta, is added to the centre.

    Modes: asynchronous, and synchronous except with `frequency="batch"`, which merges gradients. If
    a short shard has no batches left for a synchronous exchange, its `e_k` is missing from the sum,
    and the other `e_k` do not change. A shard begins every `fit` at the centre, and keeps its
    weights until the end of that `fit`.

    Example:

    ```python
    from kspark.optimizers import ElasticAverage

    spark_model = SparkModel(model, mode="asynchronous", server_optimizer=ElasticAverage(rho=0.9))
    ```

    Args:
        rho: Float > 0 and <= 1, the paper's `beta`: in a round, the centre moves this fraction of
            the way to the mean of all replicas. Defaults to `0.9`.
        momentum: Float in [0, 1), the paper's `delta`. Defaults to `0.0`.

    Raises:
        TypeError: If `rho` or `momentum` is not a number.
        ValueError: If `rho` or `momentum` is out of range.

    Reference:
        Zhang, Choromanska, LeCun, 2015, "Deep learning with Elastic Averaging
        SGD", https://arxiv.org/abs/1412.6651, equations 5 and 6 (rounds),
        Algorithm 1 (asynchronous EASGD), Algorithm 2 (EAMSGD).
    """

    modes = frozenset((ASYNCHRONOUS, SYNCHRONOUS))
    refusal = "replica and centre must move by the same amount, which needs a lock"
    keeps_replica_weights = True

    def __init__(self, rho: float = 0.9, momentum: float = 0.0) -> None:
        super().__init__()
        self.rho = number("rho", rho, "a number > 0 and <= 1")
        if not 0 < self.rho <= 1:
            raise invalid("rho", "a number > 0 and <= 1", rho)
        self.momentum = decay("momentum", momentum)

    def moving_rate(self, context: MergeContext) -> float:
        """Return the paper's `alpha` for one replica, or its `beta` for a whole round.

        Args:
            context: `MergeContext` of the delta.
        """
        return self.rho * float(context.share)

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Move the centre towards a replica or, in a round, towards the mean of all replicas.

        Args:
            weights: Vector, the centre, changed in place.
            delta: Vector, the replica's weights minus `weights`.
            context: `MergeContext`.
        """
        rate = self.moving_rate(context)
        for centre, gap in blocks(weights, delta):
            centre += rate * gap

    def replica_slots(self, size: int, dtype: npt.DTypeLike) -> dict[str, np.ndarray]:
        """Return a velocity of zeros, if there is momentum."""
        return {"velocity": np.zeros(size, dtype)} if self.momentum else {}

    def replica_update(
        self,
        local: np.ndarray,
        gap: np.ndarray,
        start: np.ndarray,
        slots: Mapping[str, np.ndarray],
        context: MergeContext,
    ) -> None:
        """Move a replica towards the centre, by as much as the centre moves towards it."""
        rate = self.moving_rate(context)
        if not self.momentum:
            for x, g in blocks(local, gap):
                x -= rate * g
            return
        for x, g, begun, v in blocks(local, gap, start, slots["velocity"]):
            v *= self.momentum
            v += x - begun
            x -= rate * g
            x += self.momentum * v
