"""Elephas' functions that load its stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kspark.ml.elephas.estimator import ElephasEstimator
from kspark.ml.elephas.transformer import ElephasTransformer


def load_ml_estimator(
    file_name: str, custom_objects: Mapping[str, Any] | None = None
) -> ElephasEstimator:
    """Read what `ElephasEstimator.save` wrote, here or in Elephas.

    Example:

    ```python
    estimator.save("estimator.h5")
    estimator = load_ml_estimator("estimator.h5")
    ```

    Args:
        file_name: String, path of the HDF5 file or the directory.
        custom_objects: Dictionary of names to custom objects, which are not saved.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of an estimator, or needs custom objects.
    """
    return ElephasEstimator.read().customObjects(custom_objects or {}).load(file_name)


def load_ml_transformer(
    file_name: str, custom_objects: Mapping[str, Any] | None = None
) -> ElephasTransformer:
    """Read what `ElephasTransformer.save` wrote, here or in Elephas.

    Example:

    ```python
    transformer.save("transformer.h5")
    transformer = load_ml_transformer("transformer.h5")
    ```

    Args:
        file_name: String, path of the HDF5 file or the directory.
        custom_objects: Dictionary of names to custom objects, which are not saved.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of a transformer, or needs custom objects.
    """
    return ElephasTransformer.read().customObjects(custom_objects or {}).load(file_name)
