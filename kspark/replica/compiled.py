"""Restore the parts of a model's compilation that a `.keras` file does not store.

The file stores the optimizer that was passed to `compile`. Whether Keras wraps the
optimizer to scale the loss depends on the model's dtype policy, which functional
models do not store, and on an argument of `compile` that is not stored either. Nor
does any configuration list the variables that are excluded from weight decay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.replica.variables import assign_all, values_of

if TYPE_CHECKING:
    import keras

SCALED_POLICY = "mixed_float16"
"""The dtype policy of models whose optimizer Keras wraps to scale the loss."""


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer that a model's file does not restore, as plain data.

    Attributes:
        config: String, the optimizer's configuration as JSON.
        excluded: Tuple of integers, indices of the trainable variables without weight decay.
        state: Tuple of arrays, values of the optimizer's variables.
    """

    config: str
    excluded: tuple[int, ...]
    state: tuple[np.ndarray, ...] = field(repr=False, compare=False)

    @classmethod
    def of(cls, model: keras.Model) -> OptimizerSpec | None:
        """Describe the optimizer of a model, or return `None` if the model's file restores it.

        Args:
            model: A compiled `keras.Model` with a built optimizer.
        """
        import keras

        optimizer = model.optimizer
        scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        excluded = without_weight_decay(optimizer, model.trainable_variables)
        if scales == (model.dtype_policy.name == SCALED_POLICY) and not excluded:
            return None
        config = json.dumps(keras.optimizers.serialize(optimizer))
        return cls(config, excluded, tuple(values_of(optimizer.variables)))

    @property
    def settings(self) -> tuple[Any, ...]:
        """All attributes but the state."""
        return self.config, self.excluded

    def restore(self, model: keras.Model, custom_objects: Mapping[str, Any]) -> None:
        """Replace the optimizer of a rebuilt model by this one."""
        import keras

        # Variables can be excluded only before an optimizer is built, so make a new optimizer.
        optimizer = keras.optimizers.deserialize(json.loads(self.config), dict(custom_objects))
        if self.excluded:
            variables = [model.trainable_variables[i] for i in self.excluded]
            innermost(optimizer).exclude_from_weight_decay(var_list=variables)
        optimizer.build(model.trainable_variables)
        assign_all(optimizer.variables, list(self.state), "optimizer_state")
        model.optimizer = optimizer


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer inside a `LossScaleOptimizer`, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def without_weight_decay(
    optimizer: keras.optimizers.Optimizer, variables: list[Any]
) -> tuple[int, ...]:
    """Return the variables that `exclude_from_weight_decay` excluded.

    Keras has no public method for this. In Keras 3.8 to 3.15, optimizers decide with the
    method `_use_weight_decay`, called with TensorFlow's variables on that backend. An
    optimizer without the method is assumed to exclude no variable.

    Args:
        optimizer: A built `keras.optimizers.Optimizer`.
        variables: List of the model's trainable variables.

    Returns:
        Tuple of indices into `variables`.
    """
    import keras

    decays = getattr(innermost(optimizer), "_use_weight_decay", None)
    if decays is None:
        return ()
    if keras.backend.backend() == "tensorflow":
        variables = [v.value for v in variables]
    return tuple(i for i, variable in enumerate(variables) if not decays(variable))


def classes_of(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """Return the class name of an optimizer, and that of the optimizer inside it if any."""
    inner = innermost(optimizer)
    return [type(o).__name__ for o in ([optimizer] if inner is optimizer else [optimizer, inner])]


@contextmanager
def default_policy(config: str) -> Iterator[None]:
    """Set the global dtype policy inside the block.

    Args:
        config: String, the policy's configuration as JSON.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(keras.dtype_policies.deserialize(json.loads(config)))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
