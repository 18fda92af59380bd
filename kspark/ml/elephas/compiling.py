"""Elephas' `optimizer_config`, `loss` and `metrics`: what they hold, and what `compile` gets.

A Param holds plain data: names, and configurations as Keras serializes them.
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
"""What Keras raises for names and configurations that it does not know."""

OPTIMIZER_RULE = (
    "what `keras.optimizers.serialize` gives (a dictionary with class_name and config), or a name"
)


def dictionary(name: str) -> Callable[[Any], dict[str, Any]]:
    """A dictionary, as a copy."""

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise invalid_type(name, "a dictionary", value)
        return dict(value)

    return convert


def optimizer_config(value: Any) -> Any:
    """An optimizer's configuration, or its name."""
    if isinstance(value, str):
        return str(value)
    config = dictionary("optimizer_config")(value)
    named, settings = config.get("class_name"), config.get("config")
    if not isinstance(named, str) or not isinstance(settings, Mapping):
        raise invalid("optimizer_config", OPTIMIZER_RULE, value)
    return plain("optimizer_config", config)


def loss(value: Any) -> str:
    """The name of a loss; of a function, its name."""
    if isinstance(value, FunctionType):
        return value.__name__
    if not isinstance(value, str):
        rule = "a name or a function (a loss object stays what it is in a compiled `model`)"
        raise invalid_type("loss", rule, value)
    return str(value)


def metrics(value: Any) -> list[Any]:
    """A list of metrics: of functions the names, of `keras.metrics.Metric` the configurations."""
    if not isinstance(value, list | tuple):
        raise invalid_type("metrics", "a list of metrics", value)
    return [metrics(item) if isinstance(item, list | tuple) else metric(item) for item in value]


def metric(value: Any) -> Any:
    """One metric as plain data."""
    if isinstance(value, keras.metrics.Metric):
        value = keras.metrics.serialize(value)
    if isinstance(value, FunctionType):
        return value.__name__
    if isinstance(value, Mapping) and "class_name" in value:
        return plain("metrics", dict(value))
    if not isinstance(value, str):
        rule = "a list of names, functions, `keras.metrics.Metric` or configurations of those"
        raise invalid_type("metrics", rule, value)
    return str(value)


def plain(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, if it is JSON data."""
    try:
        json.dumps(config)
    except (TypeError, ValueError) as error:
        raise invalid(name, f"made of JSON data ({error})", config) from error
    return config


def own_parts(value: Any) -> dict[str, Any]:
    """The user's own functions and classes among losses and metrics, by name."""
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
    """The optimizer that `optimizer_config` tells, else Keras' default."""
    config = config or "rmsprop"
    try:
        found = keras.optimizers.get(config) if isinstance(config, str) else optimizer_of(config)
    except FAILURES as error:
        name = config if isinstance(config, str) else config["class_name"].split(">")[-1]
        if not hasattr(keras.optimizers, name):
            raise unknown("optimizer_config", name, keras.optimizers, objects) from error
        rule = f"{OPTIMIZER_RULE} ({first_line(error)})"
        raise invalid("optimizer_config", rule, config) from error
    if not isinstance(found, keras.optimizers.Optimizer):  # Keras gives an unknown name back
        raise unknown("optimizer_config", config["class_name"], keras.optimizers, objects)
    return found


def loss_argument(name: Any, objects: Mapping[str, Any]) -> Any:
    """The loss of a name.

    Raises:
        ValueError: If there is none.
    """
    if name is None:
        raise invalid("loss", "set before `fit`", None)
    if name in objects:
        return made(objects[name])
    try:
        keras.losses.get(name)
    except FAILURES as error:
        raise unknown("loss", name, keras.losses, objects) from error
    return name


def metrics_argument(value: Any, objects: Mapping[str, Any]) -> Any:
    """The metrics, as `compile` takes them."""
    if isinstance(value, list):
        return [metrics_argument(item, objects) for item in value]
    if isinstance(value, str) and value in objects:
        return made(objects[value])
    name = value if isinstance(value, str) else value["class_name"]
    try:
        found = metric_of(value)
    except FAILURES as error:
        raise unknown("metrics", name, keras.metrics, objects) from error
    if not isinstance(value, str) and not callable(found):  # Keras gives an unknown name back
        raise unknown("metrics", name, keras.metrics, objects)
    return found


ARGUMENTS: Mapping[str, tuple[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "optimizer_config": ("optimizer", optimizer_argument),
    "loss": ("loss", loss_argument),
    "metrics": ("metrics", metrics_argument),
}
"""Params, the arguments of `compile` that they stand for, and what makes one of the other."""


def compile_arguments(
    params: Mapping[str, Any], objects: Mapping[str, Any], names: Any = tuple(ARGUMENTS)
) -> dict[str, Any]:
    """What Params tell about `compile`.

    Args:
        params: Mapping with the values of the Params in `ARGUMENTS`.
        objects: Mapping from name to custom object.
        names: Sequence of strings, the Params that are asked.

    Raises:
        ValueError: If there is no loss, or Keras does not know one of the names.
    """
    with keras.saving.custom_object_scope(dict(objects)):
        made_of = {name: ARGUMENTS[name] for name in names}
        return {word: make(params[name], objects) for name, (word, make) in made_of.items()}


def made(thing: Any) -> Any:
    """A custom object as `compile` takes it: of a class, an instance."""
    return thing() if isinstance(thing, type) else thing


def unknown(param: str, name: str, home: ModuleType, objects: Mapping[str, Any]) -> ValueError:
    """The error for a name that nothing answers to, with the one that was perhaps meant."""
    names = [n for n in dir(home) if not n.startswith("_")]
    by_form = {n.lower(): n for n in (*names, *sorted(BY_OUTPUT), *objects)}
    near = difflib.get_close_matches(name.lower(), by_form, n=1)
    hint = f" (perhaps {by_form[near[0]]!r})" if near else ""
    return invalid(param, f"known to Keras or named in `custom_objects`{hint}", name)


def first_line(error: Exception) -> str:
    """The beginning of what an error says."""
    return next(iter(str(error).splitlines()), type(error).__name__)
