"""Tell whether a model has changed since its copy was sent to the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import keras
import numpy as np

from kspark.replica.comparing import SCALARS, enclosed_values, is_data, is_own, managed_names
from kspark.replica.pickling import dump_with_layers
from kspark.replica.steps import checked, container_of
from kspark.saving.vocabularies import is_lookup, layers_of, table_digest

UNKNOWN_CONFIG = (NotImplementedError, TypeError, ValueError, AttributeError)
"""Errors of `get_config` of layers without a complete one."""

VOCABULARY = frozenset({"vocabulary", "idf_weights", "vocabulary_size"})
"""Parts of a configuration that `table_digest` covers, and that may have 100,000 words."""


def model_digest(model: keras.Model) -> str:
    """Return a digest of what a model predicts with, as 32 hexadecimal digits.

    It covers all variables, the vocabularies of lookup layers, the configurations of all layers,
    which also hold the state of layers such as `Discretization`, and the attributes of layers of
    the user's classes.
    """
    digest = hashlib.blake2b(digest_size=16)
    for variable in model.variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(value.reshape(-1).view(np.uint8).data)
    for layer in layers_of(model):
        if is_lookup(layer):
            digest.update(table_digest(layer))
        elif not isinstance(layer, keras.Model):  # Its layers are among the others.
            update(digest, config_of(layer))
        update(digest, own_attributes(layer))
    return digest.hexdigest()


def step_digest(step: Any) -> str:
    """Return a digest of what a function of a batch or a layer, such as `preprocess`, does."""
    step = checked("preprocess", step)
    if isinstance(step, keras.Layer):
        return model_digest(container_of(step))
    data, layers = dump_with_layers({"preprocess": step})
    digests = [model_digest(container_of(layer)) for layer in layers]
    return hashlib.blake2b(data + "".join(digests).encode(), digest_size=16).hexdigest()


def own_attributes(layer: keras.Layer) -> dict[str, Any]:
    """Return the attributes of a layer of the user's class that Keras does not manage."""
    if not is_own(layer):
        return {}
    names = vars(layer).keys() - managed_names()
    return {name: vars(layer)[name] for name in sorted(names) if is_data(vars(layer)[name])}


def config_of(layer: keras.Layer) -> dict[str, Any]:
    """Return the configuration of a layer without its vocabulary; empty if it has none."""
    try:
        config = layer.get_config()
    except UNKNOWN_CONFIG:
        return {}
    return {name: value for name, value in config.items() if name not in VOCABULARY}


def update(digest: Any, value: Any) -> None:
    """Add nested data to a digest. Of other objects, only the class is added."""
    if isinstance(value, SCALARS):
        digest.update(repr(value).encode())
    elif isinstance(value, np.ndarray):
        digest.update(repr(value.tolist()).encode())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            digest.update(str(key).encode())
            update(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(str(len(value)).encode())
        for item in value:
            update(digest, item)
    elif isinstance(value, FunctionType):
        digest.update(value.__code__.co_code)
        update(digest, [*value.__code__.co_names, *enclosed_values(value)])
    else:
        digest.update(type(value).__qualname__.encode())
