"""Bring tensors of other libraries, and tables like those kspark reads, into forms it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from kspark.adapters.conform import Place


def host_array(value: Any) -> np.ndarray:
    """Return an array, or a tensor of TensorFlow, PyTorch or JAX, as a NumPy array.

    NumPy has no bfloat16, which becomes float32.
    """
    if hasattr(value, "detach"):  # of PyTorch: NumPy reads neither gradients nor other devices
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def plain_table(value: Any) -> Any:
    """Return a table of Polars, and a batch of Arrow, as a table of Arrow; one of pandas-on-Spark
    as one of Spark.

    Any other value is returned unchanged. The packages need not be installed, so the classes are
    known by their names.
    """
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    kind = type(value)
    if kind.__name__ != "DataFrame":
        return value
    if kind.__module__.startswith("polars."):
        return value.to_arrow()
    if kind.__module__.startswith("pyspark.pandas."):
        return value.to_spark()
    return value


def decoded(array: np.ndarray, place: Place) -> np.ndarray:
    """Decode bytes, which is how TensorFlow holds text, and NumPy may.

    Raises:
        ValueError: If they are not UTF-8.
    """
    try:
        text = [v.decode() if isinstance(v, bytes) else v for v in array.flat]
    except UnicodeDecodeError as error:
        raise place.error("text in UTF-8", error) from error
    return np.array(text, dtype=object).reshape(array.shape)
