"""Read and write the compile configuration of HDF5 model files, of all Keras versions since 2.0.

Keras 3 does not read these configurations correctly: the loss `"mse"` fails to load, an
optimizer that Keras 2.11 to 2.15 wrote as `Custom>Adam` gets default settings, and a
`MeanMetricWrapper` fails on the first batch. So this module makes the arguments of `compile`
with public functions of Keras.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

# `compile` chooses the variant of these by the shape of the output, so they stay strings.
BY_OUTPUT = frozenset({"accuracy", "acc", "crossentropy", "ce"})


def compile_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Convert a file's training configuration to arguments of `keras.Model.compile`.

    Custom objects are taken from Keras' current scope.

    Args:
        config: Dictionary, the JSON of the attribute `training_config`.

    Returns:
        Dictionary of keyword arguments.

    Raises:
        ValueError: If the configuration names an object that Keras does not find.
    """
    arguments = {
        "optimizer": optimizer(config["optimizer_config"]),
        "loss": each(loss, config.get("loss")),
        "metrics": each(metric, flat(config.get("metrics"))),
        "weighted_metrics": each(metric, flat(config.get("weighted_metrics"))),
        "loss_weights": config.get("loss_weights"),
    }
    later = ("run_eagerly", "steps_per_execution", "jit_compile")
    return arguments | {name: config[name] for name in later if name in config}


def training_config(compile_config: dict[str, Any]) -> dict[str, Any]:
    """Convert a model's compile configuration to that of HDF5 files.

    `keras.Model.save` also writes it, but removes the optimizer from the model's compile
    configuration: the next `.keras` file of the same model would have another optimizer.

    Args:
        compile_config: Dictionary, `model.get_compile_config()`.

    Returns:
        Dictionary of JSON data.
    """
    config = dict(compile_config)
    optimizer_config = legacy(config.pop("optimizer"))
    config["loss"] = each(lambda value: legacy(canonical(value)), config.get("loss"))
    for name in ("metrics", "weighted_metrics"):
        config[name] = each(legacy, config.get(name))
    return config | {"optimizer_config": optimizer_config}


def flat(metrics: Any) -> Any:
    """Metrics of a single output without the list per output that Keras 2 writes around them.

    Keras 3.12 does not take `[[...]]` for a model of one output.
    """
    nested = isinstance(metrics, list) and len(metrics) == 1 and isinstance(metrics[0], list)
    return metrics[0] if nested else metrics


def each(convert: Callable[[Any], Any], value: Any) -> Any:
    """Apply `convert` to each object in nested lists and dictionaries."""
    if isinstance(value, (list, tuple)):
        return [each(convert, item) for item in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {name: each(convert, item) for name, item in value.items()}
    return None if value is None else convert(value)


def optimizer(config: dict[str, Any]) -> keras.optimizers.Optimizer:
    """Make an optimizer from the configuration of any Keras version."""
    name, settings = config["class_name"], dict(config["config"])
    built_in = getattr(keras.optimizers, name.split(">")[-1], None)
    custom = keras.saving.get_registered_object(name)
    if custom is not None or built_in is None:
        return keras.optimizers.deserialize({"class_name": name, "config": settings})
    if "lr" in settings:
        settings["learning_rate"] = settings.pop("lr")
    rate = settings.get("learning_rate")
    if isinstance(rate, dict):
        settings["learning_rate"] = keras.optimizers.schedules.deserialize(rate)
    decay = settings.pop("decay", None)
    if decay:
        settings["learning_rate"] = keras.optimizers.schedules.InverseTimeDecay(rate, 1, decay)
    accepted = inspect.signature(built_in).parameters
    return built_in(**{key: value for key, value in settings.items() if key in accepted})


def loss(value: str | dict[str, Any]) -> Any:
    """Convert a loss for `compile`."""
    if isinstance(value, str):
        return keras.losses.get(value)
    settings = dict(value["config"])
    if settings.get("reduction") == "auto":  # the name of the default in Keras 2
        settings["reduction"] = "sum_over_batch_size"
    return keras.losses.deserialize({**value, "config": settings})


def metric(value: str | dict[str, Any]) -> Any:
    """Convert a metric for `compile`."""
    if isinstance(value, str):
        custom = keras.saving.get_registered_object(value)
        if custom is None and value not in BY_OUTPUT:
            keras.metrics.get(value)  # raise now, not on the first batch
        return custom or value  # a string keeps its name in the logs
    settings = value["config"]
    if value["class_name"] == "MeanMetricWrapper" and isinstance(settings.get("fn"), str):
        wrapped = metric_function(settings["fn"])
        return keras.metrics.MeanMetricWrapper(wrapped, name=settings["name"])
    return keras.metrics.deserialize(value)


def metric_function(name: str) -> Callable[..., Any]:
    """Return the function of a `MeanMetricWrapper`: a custom function, a metric or a loss."""
    custom = keras.saving.get_registered_object(name)
    return custom or getattr(keras.metrics, name, None) or keras.losses.get(name)


def canonical(value: Any) -> Any:
    """Return the full name of a loss, because Keras cannot load short names such as "mse"."""
    if not isinstance(value, str):
        return value
    function = keras.losses.get(value)
    return getattr(function, "__name__", value)


def legacy(value: Any) -> Any:
    """Convert a serialized object to the HDF5 format, in which a function is its name."""
    if not isinstance(value, dict):
        return value
    if value["class_name"] == "function":
        return value["config"]
    name = value.get("registered_name") or value["class_name"]
    return {"class_name": name, "config": value["config"]}
