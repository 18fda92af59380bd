"""The base class of Adagrad, Adam and Yogi: adaptive federated optimization."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from kspark.optimizers.arguments import decay, not_negative, positive
from kspark.optimizers.base import ASYNCHRONOUS, SYNCHRONOUS, MergeContext, ServerOptimizer
from kspark.optimizers.blocks import blocks


class Adaptive(ServerOptimizer):
    """Base class of the adaptive rules: Algorithm 2 of Reddi et al., without its line for `v`.

    ```
    m <- beta_1 m + (1 - beta_1) delta
    v <- accumulate(v, delta^2)                                   (each rule's own line)
    w <- w + learning_rate m / (sqrt(v) + epsilon)
    ```

    The step hardly depends on the length of the delta. So a push is scaled by its share after the
    step is computed, while `m` and `v` accumulate the whole delta.

    Args:
        learning_rate: Float > 0.
        beta_1: Float in [0, 1), decay of the first moment. At `0.0`, no first moment is stored.
        epsilon: Float > 0, the paper's `tau`, the degree of adaptivity. Coordinates with smaller
            deltas take smaller steps.
        initial_accumulator_value: Float >= 0, initial value of `v`, or `None` for the default of
            the rule.

    Reference:
        Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, 2020,
        "Adaptive Federated Optimization", https://arxiv.org/abs/2003.00295,
        Algorithm 2.
    """

    modes = frozenset((SYNCHRONOUS, ASYNCHRONOUS))
    refusal = "its moments and the weights must change together, otherwise a step may have any size"

    def __init__(
        self,
        learning_rate: float,
        beta_1: float,
        epsilon: float,
        initial_accumulator_value: float | None,
    ) -> None:
        super().__init__()
        self.learning_rate = positive("learning_rate", learning_rate)
        self.beta_1 = decay("beta_1", beta_1)
        self.epsilon = positive("epsilon", epsilon)
        if initial_accumulator_value is not None:
            initial_accumulator_value = not_negative(
                "initial_accumulator_value", initial_accumulator_value
            )
        self.initial_accumulator_value = initial_accumulator_value

    @abstractmethod
    def accumulate(self, accumulator: np.ndarray, squared: np.ndarray) -> None:
        """Add the squared delta to `v` in place, by the rule's own formula.

        Args:
            accumulator: Vector `v`, changed in place.
            squared: Vector, the squared delta. It may be overwritten.
        """

    def step_size(self) -> float:
        """Return the factor of the next step."""
        return self.learning_rate

    def first_accumulator_value(self) -> float:
        """Return the initial value of `v`: as given, or the paper's bound `v_{-1} >= tau^2`."""
        given = self.initial_accumulator_value
        return self.epsilon**2 if given is None else given

    def initial_slots(self) -> dict[str, float]:
        """Return the initial values of `v` and, unless `beta_1` is zero, of `m`."""
        first = {"momentum": 0.0} if self.beta_1 else {}
        return {**first, "accumulator": self.first_accumulator_value()}

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Take one adaptive step along the delta, in place."""
        rate = self.step_size() * float(context.share)
        first_moment = self.slot("momentum") if self.beta_1 else delta
        for w, d, m, v in blocks(weights, delta, first_moment, self.slot("accumulator")):
            if self.beta_1:
                m *= self.beta_1
                m += (1 - self.beta_1) * d
            self.accumulate(v, d * d)
            step = rate * m
            step /= np.sqrt(v) + self.epsilon
            w += step
