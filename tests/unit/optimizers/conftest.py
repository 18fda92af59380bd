"""Rules are tried on vectors of three numbers that were worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kspark.optimizers import MergeContext, ServerOptimizer

Applied = Callable[..., np.ndarray]


@pytest.fixture
def applied() -> Applied:
    """Apply deltas one after the other and give the weights after the last."""

    def run(
        rule: ServerOptimizer,
        *deltas: list[float],
        weights: tuple[float, ...] = (0.0, 0.0, 0.0),
        mode: str = "asynchronous",
        **context: float,
    ) -> np.ndarray:
        vector = np.array(weights, "float32")
        rule.build(vector.size, vector.dtype)
        for delta in deltas:
            rule.apply(vector, np.array(delta, "float32"), MergeContext(mode, **context))
        return vector

    return run


@pytest.fixture
def keras_applied() -> Callable[..., np.ndarray]:
    """The same with a `keras.optimizers` optimizer, which is fed minus the delta."""

    def run(optimizer: object, *deltas: np.ndarray, weights: np.ndarray) -> np.ndarray:
        import keras

        variable = keras.Variable(weights)
        for delta in deltas:
            optimizer.apply([keras.ops.convert_to_tensor(-delta)], [variable])
        return variable.numpy()

    return run


@pytest.fixture
def random_walk() -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights and six deltas of different lengths and directions."""
    rng = np.random.default_rng(7)
    deltas = [rng.normal(0, 0.1 * 3 ** -(i % 3), 50).astype("float32") for i in range(6)]
    return rng.normal(size=50).astype("float32"), deltas
