"""FedAdagrad."""

from __future__ import annotations

import numpy as np

from kspark.optimizers.adaptive import Adaptive


class Adagrad(Adaptive):
    """FedAdagrad: coordinates that have moved far take smaller steps.

    ```
    m <- beta_1 m + (1 - beta_1) delta
    v <- v + delta^2
    w <- w + learning_rate m / (sqrt(v) + epsilon)
    ```

    A push is scaled by its share after the step is computed. `v` accumulates whole deltas.

    Sign: `delta = new - old` is what the paper calls `Delta_t`, and is added.

    Modes: synchronous, asynchronous.

    Example:

    ```python
    from kspark.optimizers import Adagrad

    spark_model = SparkModel(model, server_optimizer=Adagrad(learning_rate=0.1))
    ```

    Args:
        learning_rate: Float > 0. Defaults to `0.1`.
        beta_1: Float in [0, 1). The paper's experiments use zero for this rule. At zero, no first
            moment is stored. Defaults to `0.0`.
        epsilon: Float > 0, the paper's `tau`. Defaults to `0.001`.
        initial_accumulator_value: Float >= 0, initial value of `v`. Defaults to `None`:
            `epsilon ** 2`.

    Reference:
        Reddi et al., 2020, "Adaptive Federated Optimization",
        https://arxiv.org/abs/2003.00295, Algorithm 2, the line of FedAdagrad.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        beta_1: float = 0.0,
        epsilon: float = 1e-3,
        initial_accumulator_value: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta_1, epsilon, initial_accumulator_value)

    def accumulate(self, accumulator: np.ndarray, squared: np.ndarray) -> None:
        """`v <- v + delta^2`."""
        accumulator += squared
