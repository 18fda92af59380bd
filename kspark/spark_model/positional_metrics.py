"""Correct models that were compiled with the positional arguments of Keras 2.

The third positional argument of `keras.Model.compile` is `metrics` in Keras 2 and `loss_weights` in
Keras 3, and the fourth the other way round. Programs written for Elephas pass metrics third.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import keras

from kspark.errors import invalid
from kspark.replica.compile_arguments import compile_arguments
from kspark.replica.custom_objects import collect
from kspark.replica.model_bytes import REBUILD_ERRORS


def correct_positional_metrics(model: keras.Model) -> None:
    """Compile a model again whose `loss_weights` are metrics, with a warning.

    The optimizer with its state, the loss and all other arguments stay the same.

    Args:
        model: `keras.Model`. Nothing happens if it is not compiled.

    Raises:
        ValueError: If the model has metrics both as `loss_weights` and as `metrics`.
    """
    if not model.compiled or not has_metrics(compile_arguments(model)["loss_weights"]):
        return  # Without a configuration, because Keras warns of lambdas when it makes one.
    config = compile_config(model)
    misplaced, metrics = config.get("loss_weights"), config.get("metrics")
    if not has_metrics(misplaced):
        return
    if has_metrics(metrics):
        rule = "numbers, a weight per output: the model has its metrics in `metrics`"
        raise invalid("loss_weights", rule, misplaced)
    with keras.saving.custom_object_scope(collect(model, config)):
        # Loading code is safe: the configuration comes from the user's model in this process.
        given = keras.saving.deserialize_keras_object(config, safe_mode=False)
    model.compile(
        optimizer=model.optimizer,
        loss=model.loss,
        # Keras 3.12 takes no tuples.
        metrics=list(found) if isinstance(found := given["loss_weights"], tuple) else found,
        loss_weights=given["metrics"],
        weighted_metrics=given.get("weighted_metrics"),
        run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
        jit_compile=model.jit_compile,
        auto_scale_loss=isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer),
    )
    warnings.warn(
        "The model was compiled with metrics as the third positional argument, which is "
        f"`loss_weights` in Keras 3: {given['loss_weights']!r}. kspark compiled it again with them "
        "as `metrics`. Call `model.compile(optimizer, loss, metrics=[...])` to avoid this warning.",
        stacklevel=5,
    )


def compile_config(model: keras.Model) -> dict[str, Any]:
    """Return a compiled model's configuration, or an empty dictionary if it does not have one.

    A class with a `compile` of its own has other arguments.
    """
    if type(model).compile is not keras.Model.compile:
        return {}
    try:
        return dict(model.get_compile_config() or {})
    except REBUILD_ERRORS:  # A loss or metric without a configuration. Its copy is checked later.
        return {}


def has_metrics(value: Any) -> bool:
    """Whether an argument of `compile` contains anything but numbers."""
    return any(not isinstance(leaf, Real) for leaf in leaves(value))


def leaves(value: Any) -> Iterator[Any]:
    """Yield all values in nested lists and dictionaries except for `None`."""
    if isinstance(value, Mapping) and "class_name" not in value:
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif value is not None:
        yield value
