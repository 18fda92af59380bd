"""`OptimizerSpec`: the optimizer of a model as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.replica import pickling
from kspark.replica.comparing import changed_attributes, shallow_copy
from kspark.replica.stepping import assignment, has_several, innermost, several, stepping
from kspark.replica.variables import assign_all, in_order, values_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer of a model, as plain data.

    Attributes:
        config: String, the optimizer's configuration as JSON, without `parts`. A `MultiOptimizer`
            has its optimizers in it, but not which variables they are for.
        parts: Bytes, pickled mapping of what the configuration lacks: `"learning_rates"`, schedules
            and functions, and `"attributes"` of the user's own optimizer classes. Both are mappings
            from the optimizer's position in `stepping`.
        excluded: Tuple of integers, indices of the trainable variables without weight decay.
        numbers: Tuple of integers, the position of each trainable variable's optimizer.
        order: Tuple of integers, the position of each trainable variable `in_order`.
        state: Tuple of arrays, values of the optimizer's variables.
    """

    config: str
    parts: bytes = field(repr=False)
    excluded: tuple[int, ...]
    numbers: tuple[int, ...]
    order: tuple[int, ...]
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

        optimizer, variables = model.optimizer, model.trainable_variables
        config = json.dumps(keras.optimizers.serialize(describable(optimizer)))
        rates = enumerate(map(function_of_rate, stepping(optimizer)))
        parts = {"learning_rates": {i: rate for i, rate in rates if rate is not None}}
        return cls(
            config,
            pickling.dump(parts),
            without_weight_decay(optimizer, variables),
            assignment(optimizer, variables),
            positions_in_order(model),
            tuple(values_of(optimizer.variables)),
        )

    def compared(self, model: keras.Model, custom_objects: Mapping[str, Any]) -> OptimizerSpec:
        """Add the attributes of the user's own optimizer classes that the configuration lacks."""
        copies = stepping(self.make(custom_objects))
        pairs = enumerate(zip(stepping(model.optimizer), copies, strict=True))
        changed = ((i, changed_attributes(*pair)) for i, pair in pairs)
        attributes = {i: found for i, found in changed if found}
        if not attributes:
            return self
        parts = {**pickling.load(self.parts), "attributes": attributes}
        return replace(self, parts=pickling.dump(parts))

    def make(self, custom_objects: Mapping[str, Any]) -> keras.optimizers.Optimizer:
        """Make an optimizer without state."""
        import keras

        config, objects = json.loads(self.config), dict(custom_objects)
        optimizer = keras.optimizers.deserialize(config, objects)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            # In Keras 3.15, that function returns the name of an optimizer that it does not list.
            optimizer = keras.saving.deserialize_keras_object(config, objects)
        parts = pickling.load(self.parts)
        for i, one in enumerate(stepping(optimizer)):
            if i in parts["learning_rates"]:
                one.learning_rate = parts["learning_rates"][i]
            pickling.set_attributes(one, parts.get("attributes", {}).get(i, {}))
        return optimizer

    def build(self, model: keras.Model) -> None:
        """Build the optimizer of a compiled copy of the model."""
        ordered = in_order(model, model.trainable_variables)
        variables = [ordered[i] for i in self.order]
        if has_several(model.optimizer):
            self._assign_variables(model, variables)
        # Variables can be excluded only before an optimizer is built.
        for number, optimizer in enumerate(stepping(model.optimizer)):
            excluded = [variables[i] for i in self.excluded if self.numbers[i] == number]
            if excluded:
                optimizer.exclude_from_weight_decay(var_list=excluded)
        model.optimizer.build(variables)

    def _assign_variables(self, model: keras.Model, variables: Sequence[Any]) -> None:
        """Replace a `MultiOptimizer` by one that knows which variables its optimizers are for."""
        made: Any = innermost(model.optimizer)
        paths = [variable.path for variable in variables]
        optimizers = several(made.optimizers, paths, self.numbers)
        new = type(made)(optimizers, made.loss_scale_factor, made.name)
        if made is model.optimizer:
            model.optimizer = new
        else:
            vars(model.optimizer)["inner_optimizer"] = new

    def set_state(self, model: keras.Model) -> None:
        """Set the state of the built optimizer of a copy of the model.

        Raises:
            ValueError: If the optimizer has other variables than the state.
        """
        assign_all(model.optimizer.variables, list(self.state), "optimizer_state")


def positions_in_order(model: keras.Model) -> tuple[int, ...]:
    """Return the position of each trainable variable of a model `in_order`."""
    variables = model.trainable_variables
    positions = {id(v): i for i, v in enumerate(in_order(model, variables))}
    return tuple(positions[id(v)] for v in variables)


def function_of_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the learning rate of an optimizer if it is a schedule or a function, else `None`.

    Keras has no public way to get a schedule, because `learning_rate` is its current value. In
    Keras 3.12 to 3.15 it is in the attribute `_learning_rate`.
    """
    rate = getattr(optimizer, "_learning_rate", None)
    return rate if callable(rate) else None


def describable(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return a shallow copy of an optimizer that has a configuration.

    It lacks schedules and functions that set the learning rate, and those that choose the optimizer
    of a variable.
    """
    inner: Any = innermost(optimizer)
    if inner is not optimizer:
        return shallow_copy(optimizer, inner_optimizer=describable(inner))
    if has_several(optimizer):
        return shallow_copy(
            optimizer, _optimizer_map=several([describable(one) for one in inner.optimizers])
        )
    if function_of_rate(optimizer) is None:
        return optimizer
    return shallow_copy(optimizer, _learning_rate=None)


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

    optimizers, numbers = stepping(optimizer), assignment(optimizer, variables)
    if keras.backend.backend() == "tensorflow":
        variables = [v.value for v in variables]
    rules = [getattr(one, "_use_weight_decay", lambda variable: True) for one in optimizers]
    return tuple(i for i, variable in enumerate(variables) if not rules[numbers[i]](variable))


def classes_of(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """Return the class name of an optimizer, and that of the optimizer inside it if any."""
    inner = innermost(optimizer)
    return [type(o).__name__ for o in ([optimizer] if inner is optimizer else [optimizer, inner])]
