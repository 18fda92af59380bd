"""Tell whether a model has changed since its copy was sent to the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kspark.saving.vocabularies import is_lookup, layers_of, table_digest

SCALARS = (bool, int, float, complex, str, bytes, type(None), np.generic)

UNKNOWN_CONFIG = (NotImplementedError, TypeError, ValueError, AttributeError)
"""Errors of `get_config` of layers without a complete one."""

VOCABULARY = frozenset({"vocabulary", "idf_weights", "vocabulary_size"})
"""Parts of a configuration that `table_digest` covers, and that may have 100,000 words."""


def model_digest(model: keras.Model) -> str:
    """Return a digest of what a model predicts with, as 32 hexadecimal digits.

    It covers all variables, the vocabularies of lookup layers, and the configurations of all
    layers, which also hold the state of layers such as `Discretization`.
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
    return digest.hexdigest()


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
    else:
        digest.update(type(value).__qualname__.encode())
