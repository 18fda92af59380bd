"""FedYogi."""

from __future__ import annotations

import numpy as np

from kspark.optimizers.adaptive import Adaptive
from kspark.optimizers.arguments import decay


class Yogi(Adaptive):
    """FedYogi: like Adam, but `v` changes by at most `(1 - beta_2) delta^2` per step.

    ```
    m <- beta_1 m + (1 - beta_1) delta
    v <- v - (1 - beta_2) delta^2 sign(v - delta^2)
    w <- w + learning_rate m / (sqrt(v) + epsilon)
    ```

    When deltas become small, Adam's `v` decays quickly and its steps become large. Here, small
    deltas change `v` only a little.

    A push is scaled by its share after the step is computed. `m` and `v` accumulate whole deltas.

    Sign: `delta = new - old` is what the paper calls `Delta_t`, and is added.

    Modes: synchronous, asynchronous.

    Example:

    ```python
    from kspark.optimizers import Yogi

    spark_model = SparkModel(model, server_optimizer=Yogi(learning_rate=0.03))
    ```

    Args:
        learning_rate: Float > 0, about the distance that a weight moves in a round. Use `0.003` or
            less for asynchronous training, otherwise replicas overshoot. Defaults to `0.03`.
        beta_1: Float in [0, 1). Defaults to `0.9`.
        beta_2: Float in [0, 1). Defaults to `0.99`, as in the paper.
        epsilon: Float > 0, the paper's `tau`. Defaults to `0.001`.
        initial_accumulator_value: Float >= 0, initial value of `v`. Defaults to `None`:
            `epsilon ** 2`.

    References:
        Reddi et al., 2020, "Adaptive Federated Optimization",
        https://arxiv.org/abs/2003.00295, Algorithm 2, the line of FedYogi.
        Zaheer, Reddi, Sachan, Kale, Kumar, 2018, "Adaptive Methods for
        Nonconvex Optimization", NeurIPS.
    """

    def __init__(
        self,
        learning_rate: float = 0.03,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-3,
        initial_accumulator_value: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta_1, epsilon, initial_accumulator_value)
        self.beta_2 = decay("beta_2", beta_2)

    def accumulate(self, accumulator: np.ndarray, squared: np.ndarray) -> None:
        """`v <- v - (1 - beta_2) delta^2 sign(v - delta^2)`."""
        direction = np.sign(accumulator - squared)
        squared *= 1 - self.beta_2
        squared *= direction
        accumulator -= squared
