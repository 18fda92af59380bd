"""Elephas' functions to load saved stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kspark.ml.elephas.estimator import ElephasEstimator
from kspark.ml.elephas.transformer import ElephasTransformer


def load_ml_estimator(
    file_name: str, custom_objects: Mapping[str, Any] | None = None
) -> ElephasEstimator:
    """Load an `ElephasEstimator` that kspark or Elephas saved.

    Example:

    ```python
    estimator.save("estimator.h5")
    estimator = load_ml_estimator("estimator.h5")
    ```

    Args:
        file_name: String, path of the HDF5 file or the directory.
        custom_objects: Mapping from name to custom object. Saved stages do not include them.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a file of an estimator, or needs other custom objects.
    """
    return ElephasEstimator.read().customObjects(custom_objects or {}).load(file_name)


def load_ml_transformer(
    file_name: str, custom_objects: Mapping[str, Any] | None = None
) -> ElephasTransformer:
    """Load an `ElephasTransformer` that kspark or Elephas saved.

    Example:

    ```python
    transformer.save("transformer.h5")
    transformer = load_ml_transformer("transformer.h5")
    ```

    Args:
        file_name: String, path of the HDF5 file or the directory.
        custom_objects: Mapping from name to custom object. Saved stages do not include them.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a file of a transformer, or needs other custom objects.
    """
    return ElephasTransformer.read().customObjects(custom_objects or {}).load(file_name)
