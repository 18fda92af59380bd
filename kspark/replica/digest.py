"""Tell whether a model, or what is done to its rows, has changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import keras
import numpy as np

from kspark.replica import pickling
from kspark.replica.comparing import (
    SCALARS,
    enclosed_values,
    is_data,
    is_own,
    is_record,
    managed_names,
    parts_of_partial,
)
from kspark.replica.model_bytes import read_config
from kspark.replica.pickling import dump_with_layers
from kspark.replica.steps import Step, checked, container_of
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


def lasting_digest(step: Step) -> str:
    """Return a digest of what a step does, which is the same in other processes.

    The automatic names of layers and the states of their random generators are not in it.
    """
    digest = hashlib.blake2b(digest_size=8)
    made = [spec.make() for spec in step.layers]
    for spec, (model, _) in zip(step.layers, made, strict=True):
        update(digest, without_vocabularies(unnumbered(read_config(spec.model.model_bytes))))
        for variable in model.weights:
            update(digest, np.asarray(keras.ops.convert_to_numpy(variable)))
        for layer in layers_of(model):
            if is_lookup(layer):
                digest.update(table_digest(layer))
            update(digest, own_attributes(layer))
    if step.function is not None:
        layers = [layer for _, layer in made]
        update(digest, pickling.load(step.function, layers)[step.argument])
    return digest.hexdigest()


def unnumbered(config: Any) -> Any:
    """Remove what differs from process to process: the numbers of `dense_1`, and identities."""
    if isinstance(config, str):
        return re.sub(r"_\d+$", "", config)
    if isinstance(config, list):
        return [unnumbered(item) for item in config]
    if isinstance(config, Mapping):
        names = [name for name in config if name != "shared_object_id"]
        shorter = [unnumbered(name) for name in names]
        # Arguments such as `beta_1` and `beta_2` keep their numbers.
        keys = shorter if len(set(shorter)) == len(names) else names
        return {key: unnumbered(config[name]) for key, name in zip(keys, names, strict=True)}
    return config


def without_vocabularies(config: Any) -> Any:
    """Return a configuration without the parts that `table_digest` covers."""
    if isinstance(config, Mapping):
        kept = {name: item for name, item in config.items() if name not in VOCABULARY}
        return {name: without_vocabularies(item) for name, item in kept.items()}
    return list(map(without_vocabularies, config)) if isinstance(config, list) else config


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


def update(digest: Any, value: Any, around: frozenset[int] = frozenset()) -> None:
    """Add nested data, functions and the user's own objects to a digest.

    Of other objects, only the class is added.

    Args:
        digest: Digest of `hashlib`.
        value: Any object.
        around: Set of the identities of the objects that contain the value.
    """
    if isinstance(value, SCALARS):
        digest.update(repr(value).encode())
        return
    if id(value) in around:
        return
    around |= {id(value)}
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        is_plain = not value.dtype.hasobject
        digest.update(value.tobytes() if is_plain else repr(value.tolist()).encode())
        return
    if isinstance(value, Mapping):
        parts = [part for item in value.items() for part in item]
    elif isinstance(value, list | tuple):
        parts = [len(value), *value]
    elif isinstance(value, set | frozenset):
        parts = sorted(map(repr, value))
    elif isinstance(value, FunctionType):
        parts = parts_of_function(value)
    elif isinstance(value, CodeType):
        parts = [value.co_code, *value.co_names, *value.co_consts]
    elif isinstance(value, MethodType):
        parts = [value.__func__, value.__self__]
    elif isinstance(value, partial):
        parts = parts_of_partial(value)
    else:
        name = value.__qualname__ if isinstance(value, type) else type(value).__qualname__
        parts = [name, *([vars(value)] if is_record(value) else [])]
    for part in parts:
        update(digest, part, around)


def parts_of_function(function: FunctionType) -> list[Any]:
    """Return what decides what a function does: its code, and the data that the code names."""
    known = function.__globals__
    named = [known[name] for name in names_of(function.__code__) if name in known]
    used = [value for value in named if is_own(value) and is_data(value)]
    used += [value for value in named if isinstance(value, (*SCALARS, np.ndarray))]
    defaults = [function.__defaults__, function.__kwdefaults__]
    return [function.__code__, enclosed_values(function), *defaults, *used]


def names_of(code: CodeType) -> list[str]:
    """Return the global names in a code, and in the functions that are defined in it."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return [*code.co_names, *(name for each in inner for name in names_of(each))]
