"""Learning rates and step counters of a model's optimizer, which may consist of several."""

from __future__ import annotations

from typing import Any

import keras

MULTI_OPTIMIZER: Any = getattr(keras.optimizers, "MultiOptimizer", ())
"""`keras.optimizers.MultiOptimizer`; `()` in versions of Keras that do not have it."""


def has_several(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer is a `MultiOptimizer`, or a wrapper around one."""
    return isinstance(getattr(optimizer, "inner_optimizer", optimizer), MULTI_OPTIMIZER)


def stepping(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers that make the steps, each with its learning rate and step counter.

    These are the optimizers of a `MultiOptimizer`, the optimizer inside a `LossScaleOptimizer`, or
    the optimizer itself.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(inner.optimizers) if has_several(optimizer) else [inner]


def has_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the learning rate of an optimizer follows from its step counter, or a function."""
    return not isinstance(optimizer.learning_rate, keras.Variable)


def counters_of(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Return the scalar integer variables of an optimizer, with those of its inner optimizers.

    The first one counts the calls of `apply`: Keras creates it before all other variables. The
    property `iterations` has the same value, divided by `gradient_accumulation_steps`.
    """
    return [v for v in optimizer.variables if not v.shape and "int" in str(v.dtype)]
