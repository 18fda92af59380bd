"""The vocabularies of lookup layers, which are in no variable of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

_digests: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()
"""Digest of each table. A table does not change: a layer gets a new one for a new vocabulary."""

_recorded: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Tables whose vocabulary is in the configuration of their layer."""


def layers_of(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield a model and all layers in it, at any depth, each once and in a fixed order."""
    seen: set[int] = set()
    pending: list[Any] = [model]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        if isinstance(item, keras.Layer):
            seen.add(id(item))
            yield item
            if not is_lookup(item):  # These have no layers, but lists of 100,000 words.
                pending.extend(vars(item).values())
        elif isinstance(item, Mapping):
            seen.add(id(item))
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            seen.add(id(item))
            pending.extend(item)


def is_lookup(layer: keras.Layer) -> bool:
    """Whether a layer has a vocabulary of its own."""
    return isinstance(layer, keras.layers.StringLookup | keras.layers.IntegerLookup)


def table_digest(layer: Any) -> bytes:
    """Return a digest of the vocabulary of a lookup layer, and of its weights for TF-IDF."""
    table = layer.lookup_table
    found = _digests.get(table)
    if found is None:
        found = _digests[table] = hashlib.blake2b(
            "\0".join(map(str, layer.get_vocabulary())).encode(), digest_size=16
        ).digest()
    return found + weights_of(layer).tobytes()


def weights_of(layer: Any) -> np.ndarray:
    """Return the weights for TF-IDF of all words, special tokens included; often none."""
    weights = getattr(layer, "idf_weights_const", None)
    return np.zeros(0) if weights is None else np.asarray(weights)


def record_vocabularies(model: keras.Model) -> None:
    """Bring the configurations of lookup layers up to date with their vocabularies.

    Keras saves the vocabulary that was passed to the constructor, also after `set_vocabulary`
    (Keras 3.12 to 3.15). A layer without that argument is saved with its current vocabulary.
    """
    for layer in layers_of(model):
        if not is_lookup(layer) or layer.input_vocabulary is None:
            continue
        if layer.lookup_table not in _recorded:
            words = layer.get_vocabulary(include_special_tokens=False)
            layer.input_vocabulary = [w.item() if isinstance(w, np.generic) else w for w in words]
            weights, special = weights_of(layer), layer.vocabulary_size() - len(words)
            if len(weights):
                layer.input_idf_weights = weights[special : special + len(words)].tolist()
            _recorded[layer.lookup_table] = True
