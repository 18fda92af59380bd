"""`load_spark_model`: from a file back to a `SparkModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kspark import saving
from kspark.mllib import SparkMLlibModel
from kspark.plan.checks import check_port
from kspark.plan.settings import SETTINGS
from kspark.spark_model import SparkModel
from kspark.spark_model.inputs import active_session


def load_spark_model(
    path: str, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True
) -> SparkModel:
    """Read what `SparkModel.save` wrote, or Elephas.

    Example:

    ```python
    spark_model.save("model.keras")
    spark_model = load_spark_model("model.keras")
    ```

    Args:
        path: String, local or any URI Spark can read.
        custom_objects: Dictionary of names to custom classes or functions.
        safe_mode: Boolean, whether code inside the file is refused. Defaults to `True`.

    Returns:
        A `SparkModel`, or a `SparkMLlibModel` if one was saved, with weights, optimizer state,
        compile configuration and kspark's configuration as saved.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a model's, or holds code and `safe_mode` is `True`.
    """
    saved = saving.load_model(
        str(path),
        custom_objects=custom_objects,
        safe_mode=safe_mode,
        spark=active_session(),
    )
    known = {name: value for name, value in saved.config.items() if name in SETTINGS}
    if "port" in known:
        known["port"] = check_port("port", known["port"])  # JSON makes a list of a pair
    kind = SparkMLlibModel if saved.class_name == SparkMLlibModel.saved_as else SparkModel
    loaded = kind(saved.model, custom_objects=custom_objects, **known)
    loaded._outcome.server_state = dict(saved.server_state)
    return loaded
