"""Find the outputs of a model that are text."""

from __future__ import annotations

import keras

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
