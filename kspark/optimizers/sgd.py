"""Gradient descent on the pseudo-gradient, with momentum: FedAvgM, DiLoCo."""

from __future__ import annotations

import numpy as np

from kspark.errors import invalid
from kspark.optimizers.arguments import decay, flag, positive
from kspark.optimizers.base import MergeContext, ServerOptimizer
from kspark.optimizers.blocks import blocks


class SGD(ServerOptimizer):
    """Server momentum: FedAvgM, and with Nesterov's momentum DiLoCo.

    With `g = -share * delta`, the formulas are those of `keras.optimizers.SGD`:

    ```
    v <- momentum v - learning_rate g
    w <- w + v                                    (momentum)
    w <- w + momentum v - learning_rate g         (nesterov=True)
    ```

    Without momentum, there is no velocity and `w <- w - learning_rate g`, which equals `Average` at
    `learning_rate=1.0`. With momentum, a constant delta finally moves the weights by
    `learning_rate / (1 - momentum)` times the delta per step.

    In asynchronous training, the velocity decays once per push, not once per round. Stale deltas
    act like momentum, so use a smaller `momentum` with many replicas to avoid overshooting.

    DiLoCo is `SGD(learning_rate=0.7, momentum=0.9, nesterov=True)` with several hundred local
    batches between exchanges.

    Sign: `delta = new - old`; the pseudo-gradient `g = -delta` is subtracted.

    Modes: all. In hogwild mode, the velocity is also updated without a lock.

    Example:

    ```python
    from kspark.optimizers import SGD

    spark_model = SparkModel(model, server_optimizer=SGD(0.7, momentum=0.9))
    ```

    Args:
        learning_rate: Float > 0. Defaults to `1.0`.
        momentum: Float in [0, 1). Defaults to `0.0`.
        nesterov: Boolean, whether to use Nesterov momentum, which needs `momentum` above zero.
            Defaults to `False`.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If an argument is out of range, or `nesterov` is used without momentum.

    References:
        Hsu, Qi, Brown, 2019, "Measuring the Effects of Non-Identical Data
        Distribution for Federated Visual Classification",
        https://arxiv.org/abs/1909.06335 (FedAvgM: `v <- beta v + g`, `w <- w - v`).
        Douillard et al., 2023, "DiLoCo: Distributed Low-Communication Training
        of Language Models", https://arxiv.org/abs/2311.08105, Algorithm 1 with
        Nesterov's momentum as the outer optimizer.
    """

    def __init__(
        self, learning_rate: float = 1.0, momentum: float = 0.0, nesterov: bool = False
    ) -> None:
        super().__init__()
        self.learning_rate = positive("learning_rate", learning_rate)
        self.momentum = decay("momentum", momentum)
        self.nesterov = flag("nesterov", nesterov)
        if nesterov and not self.momentum:
            raise invalid("momentum", "> 0 if `nesterov` is True", momentum)

    def initial_slots(self) -> dict[str, float]:
        """Return the initial velocity, if there is momentum."""
        return {"velocity": 0.0} if self.momentum else {}

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Take one step along the delta, in place."""
        rate = self.learning_rate * float(context.share)
        if not self.momentum:
            for w, d in blocks(weights, delta):
                w += rate * d
            return
        for w, d, v in blocks(weights, delta, self.slot("velocity")):
            step = rate * d
            v *= self.momentum
            v += step
            if self.nesterov:
                step += self.momentum * v
                w += step
            else:
                w += v
