"""From HDF5 files back to Elephas' stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kspark.ml.elephas import ElephasEstimator, ElephasTransformer
from kspark.ml.elephas_files import decoded, read
from kspark.saving.rebuild import rebuilding


def load_ml_estimator(
    file_name: str, custom_objects: Mapping[str, Any] | None = None
) -> ElephasEstimator:
    """Read what `ElephasEstimator.save` wrote, here or in Elephas.

    Args:
        file_name: String, path of the file.
        custom_objects: Dictionary of names to custom objects, which no file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of an estimator, or needs custom objects.
    """
    config, weights = read(file_name, "ElephasEstimator")
    model = given(file_name, config, weights, dict(custom_objects or {})) if weights else None
    return ElephasEstimator(model, custom_objects=custom_objects, **config)


def given(
    path: str, config: dict[str, Any], weights: list[np.ndarray], objects: dict[str, Any]
) -> keras.Model:
    """The model that an estimator was given, compiled as it was, without optimizer state."""
    text = config["keras_model_config"]
    with rebuilding(path, json.loads(text), objects), keras.saving.custom_object_scope(objects):
        model = keras.models.model_from_json(text)
    model.set_weights(weights)
    return model


def load_ml_transformer(
    file_name: str, custom_objects: Mapping[str, Any] | None = None
) -> ElephasTransformer:
    """Read what `ElephasTransformer.save` wrote, here or in Elephas.

    Args:
        file_name: String, path of the file.
        custom_objects: Dictionary of names to custom objects, which no file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of a transformer.
    """
    config, weights = read(file_name, "ElephasTransformer")
    kind = decoded(config.pop("model_type", None))
    return ElephasTransformer(
        weights=weights, model_type=kind, custom_objects=custom_objects, **config
    )
