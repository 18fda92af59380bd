"""FedAdam."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kspark.optimizers.adaptive import Adaptive
from kspark.optimizers.arguments import decay, flag
from kspark.optimizers.base import MergeContext


class Adam(Adaptive):
    """FedAdam: a step of about `learning_rate` in coordinates whose deltas have a steady sign.

    ```
    m <- beta_1 m + (1 - beta_1) delta
    v <- beta_2 v + (1 - beta_2) delta^2
    w <- w + learning_rate m / (sqrt(v) + epsilon)
    ```

    The paper does not correct the bias, and `v` is initially `epsilon ** 2`. With
    `bias_correction=True`, `v` is initially zero, step t is multiplied by
    `sqrt(1 - beta_2^t) / (1 - beta_1^t)`, and the rule equals `keras.optimizers.Adam`.

    A push is scaled by its share after the step is computed. `m` and `v` accumulate whole deltas.

    Sign: `delta = new - old` is what the paper calls `Delta_t`, and is added.

    Modes: synchronous, asynchronous.

    Example:

    ```python
    from kspark.optimizers import Adam

    spark_model = SparkModel(model, server_optimizer=Adam(learning_rate=0.03))
    ```

    Args:
        learning_rate: Float > 0, about the distance that a weight moves in a round. Use `0.003` or
            less for asynchronous training, otherwise replicas overshoot. Defaults to `0.03`.
        beta_1: Float in [0, 1). Defaults to `0.9`.
        beta_2: Float in [0, 1). Defaults to `0.99`, as in the paper.
        epsilon: Float > 0, the paper's `tau`. Defaults to `0.001`.
        bias_correction: Boolean, whether to correct the bias of the moments. Defaults to `False`.
        initial_accumulator_value: Float >= 0, initial value of `v`. Defaults to `None`:
            `epsilon ** 2`, or zero with `bias_correction`.

    References:
        Reddi et al., 2020, "Adaptive Federated Optimization",
        https://arxiv.org/abs/2003.00295, Algorithm 2, the line of FedAdam.
        Kingma, Ba, 2014, "Adam: A Method for Stochastic Optimization",
        https://arxiv.org/abs/1412.6980, the formula before section 2.1 for the
        corrected step, in which `epsilon` is "epsilon hat".
    """

    def __init__(
        self,
        learning_rate: float = 0.03,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-3,
        bias_correction: bool = False,
        initial_accumulator_value: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta_1, epsilon, initial_accumulator_value)
        self.beta_2 = decay("beta_2", beta_2)
        self.bias_correction = flag("bias_correction", bias_correction)

    def accumulate(self, accumulator: np.ndarray, squared: np.ndarray) -> None:
        """`v <- beta_2 v + (1 - beta_2) delta^2`."""
        squared *= 1 - self.beta_2
        accumulator *= self.beta_2
        accumulator += squared

    def first_accumulator_value(self) -> float:
        """Return the initial value of `v`: as in the paper, or zero with bias correction."""
        if self.bias_correction and self.initial_accumulator_value is None:
            return 0.0
        return super().first_accumulator_value()

    def build(self, size: int, dtype: npt.DTypeLike) -> None:
        """Allocate the moments, and the number of steps for bias correction."""
        super().build(size, dtype)
        if self.bias_correction:
            self._slots.setdefault("iterations", np.zeros((), "int64"))

    def step_size(self) -> float:
        """Return the learning rate, with the bias correction if it is enabled."""
        if not self.bias_correction:
            return self.learning_rate
        t = int(self.slot("iterations")) + 1
        return self.learning_rate * float(np.sqrt(1 - self.beta_2**t)) / (1 - self.beta_1**t)

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Take one step along the delta, in place."""
        super().apply(weights, delta, context)
        if self.bias_correction:
            self.slot("iterations")[...] += 1
