"""Errors for data of kinds that kspark does not read, which say how to convert it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kspark.adapters.tensors import host_array

ACCEPTED = (
    "numpy arrays, or a list or dictionary of arrays; an RDD of (x, y) or (x, y, sample_weight); "
    "a Spark DataFrame; a pandas DataFrame; a pyarrow Table; paths of Parquet files; rows "
    "that `kspark.data.spool` has spooled; or a "
    "tf.data.Dataset, a PyDataset, a DataLoader or a generator of batches"
)

COLLECT = "Collect its batches in NumPy arrays, for example with `np.concatenate`"

BATCHES = (
    "Collect its batches with `dataset.as_numpy_iterator()`, and join them with `np.concatenate` "
    "to one array for each input and each label"
)
"""Advice for a `tf.data.Dataset`; see `collecting`."""

CONVERSIONS = (
    ("scipy.sparse", "", "Convert it with `.toarray()`"),
    ("pyspark.pandas", "", "Convert it with `.to_spark()`, and name its columns"),
    ("pyspark", "", "Name columns with `features_col`, `label_col` and `weight_col`"),
    ("polars", "DataFrame", "Convert it with `.to_arrow()`"),
    ("polars", "LazyFrame", "Convert it with `.collect()`"),
    ("dask", "", "Convert it with `.compute()`"),
    ("tensorflow", "DatasetV2", BATCHES),
    ("tensorflow", "SparseTensor", "Convert it with `tf.sparse.to_dense`"),
    ("tensorflow", "RaggedTensor", "Convert it with `.to_tensor()`"),
    ("torch", "DataLoader", COLLECT),
    ("torch", "Dataset", COLLECT),
    ("keras", "PyDataset", COLLECT),
)
"""Modules and names of types (`""` for any), with the way to convert objects of these types."""

SHOWN = (bool, int, float, complex, str, bytes, type(None))
"""Types whose values errors show. The text of other objects may be long, or run a Spark job."""


def refused(name: str, rule: str, value: Any) -> TypeError:
    """Make the error for data of a kind that kspark does not read.

    Args:
        name: String, name of the argument.
        rule: String, the kinds that it may have.
        value: The data. Errors name its type, and do not print it.
    """
    advice = way_out(value)
    text = f"`{name}` must be {rule}. Received: {name}={shown(value)}"
    return TypeError(f"{text}. {advice}." if advice else text)


def shown(value: Any) -> str:
    """Return the text of a number or a string, and the type of any other object."""
    if isinstance(value, SHOWN):
        return repr(value)[:200]
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"<{module}{kind.__qualname__} object>"


def way_out(value: Any) -> str:
    """Return how to convert an object to data that kspark reads, or an empty string."""
    kinds = [(f"{kind.__module__}.", kind.__name__) for kind in type(value).__mro__]
    for module, name, advice in CONVERSIONS:
        if any(m.startswith(f"{module}.") and name in ("", n) for m, n in kinds):
            return collecting(value) if advice is BATCHES else advice
    if isinstance(value, Iterator):
        return (
            "Collect its items in NumPy arrays: rows with `np.stack(list(...))`, batches with "
            "`np.concatenate`, and as many as you want with `itertools.islice`"
        )
    return ""


def collecting(dataset: Any) -> str:
    """Return the code that collects the batches of a `tf.data.Dataset`, or advice in words."""
    parts = dataset.element_spec
    if hasattr(parts, "shape"):
        return "Collect its batches: `np.concatenate(list(dataset.as_numpy_iterator()))`"
    is_flat = isinstance(parts, tuple) and all(hasattr(part, "shape") for part in parts)
    if is_flat and 2 <= len(parts) <= 3:
        names = ", ".join(("x", "y", "sample_weight")[: len(parts)])
        batches = "zip(*dataset.as_numpy_iterator())"
        return f"Collect its batches: `{names} = map(np.concatenate, {batches})`"
    return BATCHES


def plain_array(value: Any, name: str) -> np.ndarray:
    """Convert a value to a NumPy array of at least one axis.

    Args:
        value: The value.
        name: String, name of the argument.

    Raises:
        TypeError: If it is not an array, such as a sparse matrix or a generator.
    """
    array = np.empty(()) if way_out(value) else host_array(value)
    if array.ndim == 0:
        raise refused(name, "an array with one row per example", value)
    return array
