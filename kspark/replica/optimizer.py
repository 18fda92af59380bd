"""`OptimizerSpec`: the optimizer of a model as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.replica import pickling
from kspark.replica.comparing import changed_attributes, shallow_copy
from kspark.replica.variables import assign_all, values_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer of a model, as plain data.

    Attributes:
        config: String, the optimizer's configuration as JSON, without `parts`.
        parts: Bytes, pickled mapping of what the configuration lacks: `"learning_rate"`, a
            schedule or a function, and `"attributes"` of the user's own optimizer class.
        excluded: Tuple of integers, indices of the trainable variables without weight decay.
        state: Tuple of arrays, values of the optimizer's variables.
    """

    config: str
    parts: bytes = field(repr=False)
    excluded: tuple[int, ...]
    state: tuple[np.ndarray, ...] = field(repr=False, compare=False)

    @classmethod
    def of(cls, model: keras.Model) -> OptimizerSpec:
        """Describe the optimizer of a model.

        Args:
            model: A compiled `keras.Model` with a built optimizer.

        Raises:
            ValueError: If a part of the optimizer is neither in its configuration nor can be
                pickled.
        """
        import keras

        optimizer = model.optimizer
        rate = function_of_rate(optimizer)
        described = optimizer if rate is None else without_rate(optimizer)
        config = json.dumps(keras.optimizers.serialize(described))
        parts = {} if rate is None else {"learning_rate": rate}
        excluded = without_weight_decay(optimizer, model.trainable_variables)
        return cls(config, pickling.dump(parts), excluded, tuple(values_of(optimizer.variables)))

    def compared(self, model: keras.Model, custom_objects: Mapping[str, Any]) -> OptimizerSpec:
        """Add the attributes of the user's own optimizer class that its configuration lacks."""
        copy = innermost(self.make(custom_objects))
        attributes = changed_attributes(innermost(model.optimizer), copy)
        if not attributes:
            return self
        parts = {**pickling.load(self.parts), "attributes": attributes}
        return replace(self, parts=pickling.dump(parts))

    def make(self, custom_objects: Mapping[str, Any]) -> keras.optimizers.Optimizer:
        """Make an optimizer without state."""
        import keras

        optimizer = keras.optimizers.deserialize(json.loads(self.config), dict(custom_objects))
        parts = pickling.load(self.parts)
        if "learning_rate" in parts:
            innermost(optimizer).learning_rate = parts["learning_rate"]
        pickling.set_attributes(innermost(optimizer), parts.get("attributes", {}))
        return optimizer

    def build(self, model: keras.Model) -> None:
        """Build the optimizer of a compiled copy of the model."""
        if self.excluded:  # Variables can be excluded only before an optimizer is built.
            variables = [model.trainable_variables[i] for i in self.excluded]
            innermost(model.optimizer).exclude_from_weight_decay(var_list=variables)
        model.optimizer.build(model.trainable_variables)

    def set_state(self, model: keras.Model) -> None:
        """Set the state of the built optimizer of a copy of the model.

        Raises:
            ValueError: If the optimizer has other variables than the state.
        """
        assign_all(model.optimizer.variables, list(self.state), "optimizer_state")


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer inside a `LossScaleOptimizer`, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def function_of_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the learning rate of an optimizer if it is a schedule or a function, else `None`.

    Keras has no public way to get a schedule, because `learning_rate` is its current value. In
    Keras 3.12 to 3.15 it is in the attribute `_learning_rate`.
    """
    rate = getattr(innermost(optimizer), "_learning_rate", None)
    return rate if callable(rate) else None


def without_rate(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return a shallow copy of an optimizer that can be described without its learning rate."""
    copy = shallow_copy(optimizer, _learning_rate=None)
    if innermost(optimizer) is not optimizer:
        copy = shallow_copy(optimizer, inner_optimizer=without_rate(innermost(optimizer)))
    return copy


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
