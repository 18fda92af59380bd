"""Convert a Keras model to Params of Elephas' stages, and Params to a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras

from kspark.errors import invalid, invalid_type
from kspark.ml.carried import CarriedModel
from kspark.ml.elephas.compiling import ARGUMENTS, FAILURES, compile_arguments, first_line
from kspark.replica.compile_arguments import compile_arguments as arguments_in_force
from kspark.replica.custom_objects import collect
from kspark.saving.rebuild import custom_names, known
from kspark.saving.uncompiled import remove_compilation


def described(model: Any) -> dict[str, Any]:
    """Return the Params that describe a compiled Keras model.

    They contain the names of losses and metrics, but not their arguments.

    Raises:
        TypeError: If `model` is not a Keras model.
    """
    if model is None:
        return {}
    if not isinstance(model, keras.Model):
        raise invalid_type("model", "a compiled `keras.Model`", model)
    params: dict[str, Any] = {"keras_model_config": model.to_json()}
    if model.compiled:
        config = model.get_compile_config() or {}
        params["optimizer_config"] = keras.optimizers.serialize(model.optimizer)
        params["loss"] = next(iter(titles(config.get("loss"))), None)
        params["metrics"] = titles(config.get("metrics"))
    return params


def titles(value: Any) -> list[str]:
    """Return the names of all losses or metrics in a part of a compile configuration."""
    if isinstance(value, list | tuple):
        return [title for item in value for title in titles(item)]
    if isinstance(value, Mapping) and "class_name" not in value:
        return titles(list(value.values()))
    if isinstance(value, Mapping):
        return [str(value["config" if value["class_name"] == "function" else "class_name"])]
    return [] if value is None else [str(value)]


def architecture(config: str | None) -> Any:
    """Parse a model's JSON and remove the compile arguments, which Keras 3 also writes.

    Those of models inside the model are removed, too.

    Raises:
        ValueError: If `config` is not the JSON of a model.
    """
    rule = "set to the result of `model.to_json()`"
    if config is None:
        raise invalid("keras_model_config", rule, None)
    try:
        content = json.loads(config)
    except json.JSONDecodeError as error:
        raise invalid("keras_model_config", rule, config) from error
    if not isinstance(content, dict) or "class_name" not in content:
        raise invalid("keras_model_config", rule, config)
    remove_compilation(content)
    return content


def model_from_config(config: str | None, custom_objects: dict[str, Any]) -> keras.Model:
    """Build an uncompiled Keras model from its JSON.

    Raises:
        ValueError: If `config` is not the JSON of a model, or if custom objects are missing.
    """
    content = architecture(config)
    rule = "the result of `model.to_json()`"
    try:
        text = json.dumps(content)
        model = keras.models.model_from_json(text, custom_objects=custom_objects)
    except FAILURES as error:
        missing = [name for name in custom_names(content) if not known(name, custom_objects)]
        if missing:
            names = ", ".join(map(repr, missing))
            needed = f"a dictionary with {names}, which `keras_model_config` refers to"
            raise invalid("custom_objects", needed, custom_objects) from error
        raise invalid("keras_model_config", f"{rule} ({first_line(error)})", config) from error
    if not isinstance(model, keras.Model):
        raise invalid("keras_model_config", rule, config)
    return model


def same_compiled(carried: CarriedModel, params: Mapping[str, Any]) -> keras.Model:
    """Copy a compiled model, and compile it again if Params were changed since.

    Args:
        carried: `CarriedModel`.
        params: Mapping with the values of the Params in `ARGUMENTS` and `custom_objects`.

    Returns:
        A compiled `keras.Model`. Compile arguments whose Params were not changed are those
        of the original.
    """
    model, before = carried.clone(), described(carried.model)
    changed = [name for name in ARGUMENTS if params[name] != before[name]]
    if changed:
        config = model.get_compile_config()
        objects = {**collect(model, config, carried.custom_objects), **params["custom_objects"]}
        new = compile_arguments(params, objects, changed)
        model.compile(**{**arguments_in_force(model), "optimizer": model.optimizer, **new})
    return model
