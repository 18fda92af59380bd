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
    """Elastic averaging SGD: replicas keep their own weights, a spring ties them to the centre.

    Replica k has weights `x_k` of its own and never takes over the global
    weights, the centre `c`. At an exchange both move by the same amount:

    ```
    e_k = alpha_k (x_k - c),   alpha_k = rho share_k
    x_k <- x_k - e_k
    c   <- c + e_k             (a round: c <- c + sum_k e_k, all from the same c)
    ```

    A round is `c <- (1 - rho) c + rho * (mean of x_k)`, the paper's equation 6.
    What `fit` returns is the centre.

    The paper has `alpha = eta * rho` for each of p replicas and shows `beta = p *
    alpha` to be what matters for stability. That product is the argument here:
    it needs no change when the learning rate or the number of workers do. With
    equal shards `alpha = rho / p`, and the default is the paper's setting,
    beta = 0.9.

    With `momentum`, a replica goes on moving in the direction of its last
    exchanges (EAMSGD). `d_k` is what the local batches moved it by:

    ```
    v_k <- momentum v_k + d_k
    x_k <- x_k - e_k                              (as above)
    training goes on from x_k + momentum v_k      (Nesterov's point)
    ```

    At `frequency="batch"` and replicas with plain SGD, `d_k` is `-eta * gradient`
    and this is the paper's Algorithm 2. Otherwise a window of local batches takes
    the place of a single step; for momentum inside of the window as well, compile
    the model with `keras.optimizers.SGD(..., momentum=..., nesterov=True)`. A
    momentum m makes a replica move `1 / (1 - m)` times as far.

    Exchanges come after local batches, at the weights these reached. (In the paper
    the gradient of the batch that follows is still taken where the replica was
    before.)

    Sign: `gap = x_k - c`, with that sign a delta, is added to the centre.

    Modes: asynchronous, synchronous, but for the latter's `frequency="batch"`, which
    merges gradients. In a synchronous meeting that a short shard has no batches left
    for, `e_k` is missing from the sum, and the others' are as large as ever. A shard
    begins at the centre and keeps its weights for one `fit`; the next one begins at
    the centre again.

    Example:

    ```python
    from kspark.optimizers import ElasticAverage

    spark_model = SparkModel(model, mode="asynchronous", server_optimizer=ElasticAverage(rho=0.9))
    ```

    Args:
        rho: Float > 0 and <= 1, how tight the spring is, for all replicas together:
            the part of the way to their mean that the centre moves in a round. The
            paper's `beta`. Defaults to `0.9`.
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
    refusal = "a replica gives up exactly what the centre gains, which needs a lock"
    keeps_replica_weights = True

    def __init__(self, rho: float = 0.9, momentum: float = 0.0) -> None:
        super().__init__()
        self.rho = number("rho", rho, "a number > 0 and <= 1")
        if not 0 < self.rho <= 1:
            raise invalid("rho", "a number > 0 and <= 1", rho)
        self.momentum = decay("momentum", momentum)

    def moving_rate(self, context: MergeContext) -> float:
        """The paper's `alpha` of one replica; of a whole round, its `beta`.

        Args:
            context: `MergeContext` of the delta.
        """
        return self.rho * float(context.share)

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Move the centre towards a replica; in a round, towards the mean of all.

        Args:
            weights: Vector, the centre; changed in place.
            delta: Vector, the replica's weights minus `weights` (see the module `base`).
            context: `MergeContext`.
        """
        rate = self.moving_rate(context)
        for centre, gap in blocks(weights, delta):
            centre += rate * gap

    def replica_slots(self, size: int, dtype: npt.DTypeLike) -> dict[str, np.ndarray]:
        """A velocity, if there is momentum."""
        return {"velocity": np.zeros(size, dtype)} if self.momentum else {}

    def replica_update(
        self,
        local: np.ndarray,
        gap: np.ndarray,
        start: np.ndarray,
        slots: Mapping[str, np.ndarray],
        context: MergeContext,
    ) -> None:
        """Move a replica towards the centre, by as much as the centre moved towards it."""
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
