"""`load_spark_model`: load a saved `SparkModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kspark import saving
from kspark.mllib import SparkMLlibModel
from kspark.plan.settings import SETTINGS
from kspark.replica.file_facts import FileFacts
from kspark.session.default import active_session
from kspark.spark_model import SparkModel
from kspark.spark_model.saved_steps import PREFIX, SavedStep


def load_spark_model(
    path: str, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True
) -> SparkModel:
    """Load a model that `SparkModel.save` or Elephas saved.

    Example:

    ```python
    spark_model.save("model.keras")
    spark_model = load_spark_model("model.keras")
    ```

    Args:
        path: String, a local path, or a URI that Spark can read.
        custom_objects: Dictionary from names to custom classes or functions, including server
            optimizers, that are not registered. Defaults to `None`.
        safe_mode: Boolean, whether to refuse a file that contains Python code, or names a
            function for `preprocess` that is not one of your own, imported modules. Defaults to
            `True`.

    Returns:
        A `SparkModel`, or a `SparkMLlibModel` if one was saved, with the saved weights,
        optimizer state, compile configuration and settings, `preprocess` among them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a model file, needs other custom objects, or contains
            code and `safe_mode` is `True`.
    """
    saved = saving.load_model(
        str(path),
        custom_objects=custom_objects,
        safe_mode=safe_mode,
        spark=active_session(),
    )
    facts, server_state = FileFacts.loaded(saved.facts, saved.server_state)
    facts.apply(saved.model, custom_objects or {}, safe_mode=safe_mode)
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value  # JSON has no tuples
        for name, value in saved.config.items()
        if name in SETTINGS
    }
    kind = SparkMLlibModel if saved.class_name == SparkMLlibModel.saved_as else SparkModel
    step = SavedStep(saved.config, server_state)
    objects = custom_objects or {}
    preprocess = step.load("preprocess", objects, safe_mode=safe_mode)
    server_state = {name: a for name, a in server_state.items() if not name.startswith(PREFIX)}
    loaded = kind(saved.model, custom_objects=custom_objects, preprocess=preprocess, **known)
    loaded._outcome.server_state = server_state
    return loaded
