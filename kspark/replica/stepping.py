"""The optimizers that make a model's steps: one, or several in a `MultiOptimizer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer inside a `LossScaleOptimizer`, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def has_several(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer is a `MultiOptimizer`, also inside a `LossScaleOptimizer`.

    Earlier versions of Keras do not have that class.
    """
    import keras

    return isinstance(innermost(optimizer), getattr(keras.optimizers, "MultiOptimizer", ()))


def stepping(optimizer: Any) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers that make the steps, each with its learning rate and step counter.

    These are the optimizers of a `MultiOptimizer`, the optimizer inside a `LossScaleOptimizer`, or
    the optimizer itself.
    """
    inner = innermost(optimizer)
    return list(inner.optimizers) if has_several(optimizer) else [inner]


def has_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the learning rate of an optimizer follows from its step counter, or a function."""
    import keras

    return not isinstance(optimizer.learning_rate, keras.Variable)


def counters_of(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Return the scalar integer variables of an optimizer, with those of its inner optimizers.

    The first one counts the calls of `apply`: Keras creates it before all other variables. The
    property `iterations` has the same value, divided by `gradient_accumulation_steps`.
    """
    return [v for v in optimizer.variables if not tuple(v.shape) and "int" in str(v.dtype)]


def assignment(optimizer: Any, variables: Sequence[Any]) -> tuple[int, ...]:
    """Return which optimizer makes the steps of each variable.

    Keras has no public method for this. In Keras 3.15, a built `MultiOptimizer` keeps the positions
    in its attribute `_var_to_optimizer_idx`, by the key that `_var_key` returns.

    Args:
        optimizer: A built `keras.optimizers.Optimizer`.
        variables: Sequence of the model's trainable variables.

    Returns:
        Tuple of positions in `stepping(optimizer)`.
    """
    if not has_several(optimizer):
        return (0,) * len(variables)
    multi: Any = innermost(optimizer)
    return tuple(multi._var_to_optimizer_idx[multi._var_key(v)] for v in variables)


def several(
    optimizers: Sequence[Any], paths: Sequence[str] = (), numbers: Sequence[int] = ()
) -> Any:
    """Return an `OptimizerMap` from variables to optimizers.

    A `MultiOptimizer` of it has all the optimizers in the given order, also those without
    variables. The paths of variables are given one by one: patterns that fit the paths of a model
    need not fit those of a copy, which may lack the model's name.

    Args:
        optimizers: Sequence of `keras.optimizers.Optimizer`.
        paths: Sequence of strings, the paths of variables. Defaults to `()`.
        numbers: Sequence of integers, the position of the optimizer of each path.
    """
    import keras

    *others, last = optimizers
    in_order = {f"optimizer {i}": optimizer for i, optimizer in enumerate(others)}
    by_path = {path: optimizers[i] for path, i in zip(paths, numbers, strict=True)}
    return keras.optimizers.OptimizerMap(last, {**in_order, **by_path})
