"""Find the outputs of a model that are text, and make outputs of no rows."""

from __future__ import annotations

import keras
import numpy as np

from kspark.replica.backends.base import flat_outputs
from kspark.replica.metrics import called_on_zeros
from kspark.replica.signature import input_spec, output_names, output_tensors
from kspark.saving.vocabularies import layers_of
from kspark.shards import TEXT


def text_outputs(model: keras.Model) -> set[str]:
    """Return the names of the outputs that are text.

    The symbolic output of a `StringLookup` from numbers to text claims to be integers
    (Keras 3.8 to 3.15). Models that contain one compute a row to find the true dtypes.

    Args:
        model: A built `keras.Model`.
    """
    names, _ = output_names(model)
    if any(gives_text(layer) for layer in layers_of(model)):
        tensors = flat_outputs(called_on_zeros(model, input_spec(model)))
    else:
        tensors = flat_outputs(output_tensors(model))
    kinds = [keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors]
    return {name for name, kind in zip(names, kinds, strict=True) if kind == TEXT}


def gives_text(layer: keras.layers.Layer) -> bool:
    """Whether a layer turns numbers into text."""
    return isinstance(layer, keras.layers.StringLookup) and layer.invert


def outputs_without_rows(model: keras.Model) -> list[np.ndarray]:
    """Return an array of no rows for each output, in the shape and dtype of its predictions.

    Args:
        model: A built `keras.Model`. An axis of which it does not know the length has none.
    """
    names, _ = output_names(model)
    text = text_outputs(model)
    found = []
    for name, tensor in zip(names, flat_outputs(output_tensors(model)), strict=True):
        kind = keras.backend.standardize_dtype(tensor.dtype)
        dtype = object if name in text else np.dtype("float32" if kind == "bfloat16" else kind)
        found.append(np.empty((0, *(length or 0 for length in tensor.shape[1:])), dtype))
    return found
