"""From HDF5 files back to Elephas' stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kspark.ml.elephas import ElephasEstimator, ElephasTransformer
from kspark.ml.elephas_files import decoded, read


def load_ml_estimator(
    file_name: str, custom_objects: Mapping[str, Any] | None = None
) -> ElephasEstimator:
    """Read what `ElephasEstimator.save` wrote, here or in Elephas.

    Args:
        file_name: String, path of the file.
        custom_objects: Dictionary of names to custom objects, which no file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of an estimator.
    """
    config, _ = read(file_name, "ElephasEstimator")
    return ElephasEstimator(custom_objects=custom_objects, **config)


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
