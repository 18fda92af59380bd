"""Check the configuration of a model before Keras rebuilds the model from it.

Keras' safe mode is not enough: it can be disabled for the whole process, and before Keras
3.11.3 it does not apply to HDF5 files (CVE-2025-9905). `refuse_code` checks the
configuration itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from kspark.errors import invalid

# Layers that load a program or a pickle that is not in their configuration.
FOREIGN = frozenset({"TFSMLayer", "TorchModuleWrapper"})


def refuse_code(config: object, path: str) -> None:
    """Refuse a configuration that contains Python code.

    Args:
        config: JSON data, a configuration of any Keras version.
        path: String, the file, for errors.

    Raises:
        ValueError: If rebuilding the model would run code from the file.
    """
    for part in objects_in(config):
        if carries_code(part):
            rule = (
                f"a file without code inside, and this one has code in a {part['class_name']!r}; "
                "set `safe_mode=False` to load a file that you trust"
            )
            raise invalid("path", rule, path)


def carries_code(part: dict[str, Any]) -> bool:
    """Whether a serialized object is code, or directly contains code.

    Keras 3 writes a lambda as the object `__lambda__`, Keras 2 as a list
    [code, defaults, closure] in the configuration of a `Lambda` layer.
    """
    if part["class_name"] == "__lambda__" or part["class_name"] in FOREIGN:
        return True
    inner = part.get("config")
    if part["class_name"] != "Lambda" or not isinstance(inner, dict):
        return False
    values = [inner.get(name) for name in ("function", "output_shape", "mask")]
    return any(isinstance(v, list) and v and isinstance(v[0], str) for v in values)


def objects_in(config: object) -> Iterator[dict[str, Any]]:
    """Yield all serialized objects in a configuration, at any depth."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if isinstance(part.get("class_name"), str):
                yield part
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)


@contextmanager
def rebuilding(path: str, config: object, custom_objects: dict[str, Any]) -> Iterator[None]:
    """Add the names of missing custom objects to errors of Keras inside the block.

    Raises:
        ValueError: In place of Keras' `TypeError` or `ValueError`, if custom objects are
            missing.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        names = [n for n in custom_names(config) if not known(n, custom_objects)]
        if names:
            rule = f"a dictionary with {', '.join(map(repr, names))}, used by {path}"
            raise invalid("custom_objects", rule, custom_objects) from error
        raise


def rebuilt(
    text: str, weights: Sequence[np.ndarray], custom_objects: dict[str, Any], path: str
) -> keras.Model:
    """Rebuild a model from JSON and weights, compiled if the JSON has a compile configuration.

    Args:
        text: String that `model.to_json()` returned.
        weights: Sequence of arrays.
        custom_objects: Dictionary from names to custom objects.
        path: String, the file, for errors.

    Raises:
        ValueError: If custom objects are missing.
    """
    scope = keras.saving.custom_object_scope(custom_objects)
    with rebuilding(path, json.loads(text), custom_objects), scope:
        model = keras.models.model_from_json(text)
    model.set_weights(weights)
    return model


def custom_names(config: object) -> list[str]:
    """Return the names of classes and functions in a configuration that are not Keras' own."""
    names: dict[str, None] = {}
    for part in objects_in(config):
        name, module = part["class_name"], str(part.get("module") or "")
        if name == "function" and isinstance(part.get("config"), str):
            name = part["config"]
        own = module.split(".")[0] == "keras" or built_in(name.split(">")[-1])
        if not own and not name.startswith("__"):
            names.setdefault(name)
    return list(names)


def known(name: str, custom_objects: dict[str, Any]) -> bool:
    """Whether a custom object was passed or registered, with or without its package's name."""
    registered = {*custom_objects, *keras.saving.get_custom_objects()}
    return any(name in (other, other.split(">")[-1]) for other in registered)


def built_in(name: str) -> bool:
    """Whether Keras itself has a class or function of this name."""
    if name == "Functional":  # the only class in files that Keras does not export
        return True
    homes = (
        keras,
        keras.activations,
        keras.constraints,
        keras.dtype_policies,
        keras.initializers,
        keras.layers,
        keras.losses,
        keras.metrics,
        keras.ops,
        keras.optimizers,
        keras.optimizers.schedules,
        keras.regularizers,
    )
    return any(hasattr(home, name) for home in homes)
