"""Read the arguments with which a model was compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return the arguments of `compile` that are in force, except the optimizer.

    `compile` without a loss or metrics keeps those of an earlier call. Keras has no public way
    to get them. In Keras 3.12 to 3.15, the objects that `compile` makes store the user's values
    in attributes whose names begin with `_user_`.

    Args:
        model: A compiled `keras.Model`.

    Returns:
        Dictionary of keyword arguments of `keras.Model.compile`.
    """
    loss = getattr(model, "_compile_loss", None)
    metrics = getattr(model, "_compile_metrics", None)
    return {
        "loss": model.loss,
        "loss_weights": getattr(loss, "_user_loss_weights", None),
        "metrics": getattr(metrics, "_user_metrics", None),
        "weighted_metrics": getattr(metrics, "_user_weighted_metrics", None),
        "run_eagerly": model.run_eagerly,
        "steps_per_execution": model.steps_per_execution,
        "jit_compile": model.jit_compile,
    }
