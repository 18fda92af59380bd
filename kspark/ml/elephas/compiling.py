"""Convert Elephas' `optimizer_config`, `loss` and `metrics` to Params and to compile arguments.

The value of a Param is plain data: names, and configurations as Keras serializes them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

import keras

from kspark.errors import invalid, invalid_type
from kspark.saving.training_config import BY_OUTPUT
from kspark.saving.training_config import metric as metric_of
from kspark.saving.training_config import optimizer as optimizer_of

FAILURES = (ValueError, TypeError, KeyError, AttributeError)
"""Errors that Keras raises for unknown names and configurations."""

OPTIMIZER_RULE = (
    "an optimizer's name, or its configuration (a dictionary with class_name and config) as "
    "`keras.optimizers.serialize` returns it"
)


def dictionary(name: str) -> Callable[[Any], dict[str, Any]]:
    """Return a converter that checks and copies a dictionary."""

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise invalid_type(name, "a dictionary", value)
        return dict(value)

    return convert


def optimizer_config(value: Any) -> Any:
    """Check and copy an optimizer's configuration or name."""
    if isinstance(value, str):
        return str(value)
    config = dictionary("optimizer_config")(value)
    named, settings = config.get("class_name"), config.get("config")
    if not isinstance(named, str) or not isinstance(settings, Mapping):
        raise invalid("optimizer_config", OPTIMIZER_RULE, value)
    return plain("optimizer_config", config)


def loss(value: Any) -> str:
    """Convert a loss to its name."""
    if isinstance(value, FunctionType):
        return value.__name__
    if not isinstance(value, str):
        rule = "a name or a function (to use a loss object, pass a compiled `model`)"
        raise invalid_type("loss", rule, value)
    return str(value)


def metrics(value: Any) -> list[Any]:
    """Convert functions in a list of metrics to names, `keras.metrics.Metric` to configurations."""
    if not isinstance(value, list | tuple):
        raise invalid_type("metrics", "a list of metrics", value)
    return [metrics(item) if isinstance(item, list | tuple) else metric(item) for item in value]


def metric(value: Any) -> Any:
    """Convert one metric to plain data."""
    if isinstance(value, keras.metrics.Metric):
        value = keras.metrics.serialize(value)
    if isinstance(value, FunctionType):
        return value.__name__
    if isinstance(value, Mapping) and "class_name" in value:
        return plain("metrics", dict(value))
    if not isinstance(value, str):
        rule = "a list of names, functions, `keras.metrics.Metric` or their configurations"
        raise invalid_type("metrics", rule, value)
    return str(value)


def plain(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Check that a configuration is JSON data, and return it."""
    try:
        json.dumps(config)
    except (TypeError, ValueError) as error:
        raise invalid(name, f"made of JSON data ({error})", config) from error
    return config


def own_parts(value: Any) -> dict[str, Any]:
    """Return the user's own functions and metric classes among losses and metrics, by name."""
    if isinstance(value, list | tuple):
        return {name: part for item in value for name, part in own_parts(item).items()}
    thing = value if isinstance(value, FunctionType) else type(value)
    if str(thing.__module__).startswith("keras."):
        return {}
    if isinstance(value, FunctionType):
        return {value.__name__: value}
    is_metric = isinstance(value, keras.metrics.Metric)
    return {keras.saving.get_registered_name(thing): thing} if is_metric else {}


def optimizer_argument(config: Any, objects: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    """Create the optimizer of an `optimizer_config`, or Keras' default."""
    config = config or "rmsprop"
    try:
        found = keras.optimizers.get(config) if isinstance(config, str) else optimizer_of(config)
    except FAILURES as error:
        name = config if isinstance(config, str) else config["class_name"].split(">")[-1]
        if not hasattr(keras.optimizers, name):
            raise unknown("optimizer_config", name, keras.optimizers, objects) from error
        rule = f"{OPTIMIZER_RULE} ({first_line(error)})"
        raise invalid("optimizer_config", rule, config) from error
    if not isinstance(found, keras.optimizers.Optimizer):  # Keras returns unknown names unchanged.
        raise unknown("optimizer_config", config["class_name"], keras.optimizers, objects)
    return found


def loss_argument(name: Any, objects: Mapping[str, Any]) -> Any:
    """Look up the loss of a name for `compile`.

    Raises:
        ValueError: If the name is `None` or unknown.
    """
    if name is None:
        raise invalid("loss", "set before `fit`", None)
    if name in objects:
        return instantiated(objects[name])
    try:
        keras.losses.get(name)
    except FAILURES as error:
        raise unknown("loss", name, keras.losses, objects) from error
    return name


def metrics_argument(value: Any, objects: Mapping[str, Any]) -> Any:
    """Convert the value of `metrics` to the metrics that `compile` takes."""
    if isinstance(value, list):
        return [metrics_argument(item, objects) for item in value]
    if isinstance(value, str) and value in objects:
        return instantiated(objects[value])
    name = value if isinstance(value, str) else value["class_name"]
    try:
        found = metric_of(value)
    except FAILURES as error:
        raise unknown("metrics", name, keras.metrics, objects) from error
    if not isinstance(value, str) and not callable(found):  # Keras returns unknown names unchanged.
        raise unknown("metrics", name, keras.metrics, objects)
    return found


ARGUMENTS: Mapping[str, tuple[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "optimizer_config": ("optimizer", optimizer_argument),
    "loss": ("loss", loss_argument),
    "metrics": ("metrics", metrics_argument),
}
"""For each Param, the argument of `compile` that it sets and the function that converts it."""


def compile_arguments(
    params: Mapping[str, Any], objects: Mapping[str, Any], names: Any = tuple(ARGUMENTS)
) -> dict[str, Any]:
    """Convert Params to arguments of `compile`.

    Args:
        params: Mapping with the values of the Params in `ARGUMENTS`.
        objects: Mapping from name to custom object.
        names: Sequence of strings, the Params to convert. Defaults to all.

    Returns:
        Dictionary of arguments.

    Raises:
        ValueError: If there is no loss, or Keras does not know one of the names.
    """
    arguments = {}
    with keras.saving.custom_object_scope(dict(objects)):
        for name in names:
            argument, convert = ARGUMENTS[name]
            arguments[argument] = convert(params[name], objects)
    return arguments


def instantiated(custom_object: Any) -> Any:
    """Return an instance of a class, and any other object unchanged."""
    return custom_object() if isinstance(custom_object, type) else custom_object


def unknown(param: str, name: str, module: ModuleType, objects: Mapping[str, Any]) -> ValueError:
    """Return the error for an unknown name, with the most similar known name."""
    names = [n for n in dir(module) if not n.startswith("_")]
    by_lower = {n.lower(): n for n in (*names, *sorted(BY_OUTPUT), *objects)}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f" (perhaps {by_lower[near[0]]!r})" if near else ""
    return invalid(param, f"known to Keras or named in `custom_objects`{hint}", name)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class name if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
