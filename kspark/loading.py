"""`load_spark_model`: from a file back to a `SparkModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kspark import saving
from kspark.mllib import SparkMLlibModel
from kspark.source import active_session
from kspark.spark_model import SparkModel

SAVED_ARGUMENTS = frozenset(
    "mode frequency num_workers batch_size server_optimizer port seed timeout max_failures "
    "on_nonfinite max_staleness compression straggler_timeout".split()
)


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
    known = {k: v for k, v in saved.config.items() if k in SAVED_ARGUMENTS}
    if isinstance(known.get("port"), list):
        known["port"] = tuple(known["port"])
    kind = SparkMLlibModel if saved.class_name == SparkMLlibModel.saved_as else SparkModel
    loaded = kind(saved.model, custom_objects=custom_objects, **known)
    loaded._outcome.server_state = dict(saved.server_state)
    return loaded
