"""Errors for data of kinds that kspark does not read, which say how to convert it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from kspark.adapters.tensors import host_array
from kspark.errors import Described, invalid

ACCEPTED = (
    "numpy arrays or sparse matrices of SciPy, or a list or dictionary of these; an RDD of (x, y) "
    "or (x, y, sample_weight); a Spark DataFrame; a pandas DataFrame; a pyarrow Table; paths of "
    "Parquet files or of files of NumPy; TFRecord files; rows that `kspark.data.spool` has "
    "spooled; or a tf.data.Dataset, a PyDataset, a DataLoader or a generator of batches, or a "
    "function of (worker, num_workers) that returns one"
)

ROWS = "an array with one row per example"

COLLECT = "Collect its batches in NumPy arrays, for example with `np.concatenate`"

BATCHES = (
    "Collect its batches with `dataset.as_numpy_iterator()`, and join them with `np.concatenate` "
    "to one array for each input and each label"
)
"""Advice for a `tf.data.Dataset`; see `collecting`."""

NAMED = "name its columns with `features_col`, `label_col` and `weight_col`"

CONVERSIONS = (
    ("scipy.sparse", "", "Convert it with `.toarray()`"),
    ("pyspark.pandas", "", "Convert it with `.to_spark()`, and name its columns"),
    ("pyspark.sql", "GroupedData", "Aggregate it, for example with `.mean()`"),
    ("pyspark.sql", "Column", f"Pass the DataFrame that has the column as `x`, and {NAMED}"),
    ("pyspark.sql", "Row", "Make a DataFrame of it: `spark.createDataFrame([row])`"),
    ("pyspark.sql", "DataFrame", f"Pass it as `x`, and {NAMED}"),
    ("pyspark.ml.linalg", "", "Convert it with `.toArray()`"),
    ("pyspark.mllib.linalg", "", "Convert it with `.toArray()`"),
    ("pyspark", "Broadcast", "Pass its `.value`"),
    ("pyspark", "", f"Pass a DataFrame as `x`, and {NAMED}"),
    ("polars", "DataFrame", "Convert it with `.to_arrow()`"),
    ("polars", "LazyFrame", "Convert it with `.collect()`"),
    ("pandas.core.groupby", "", "Aggregate it, for example with `.mean()`"),
    ("pandas.io", "TextFileReader", "Read all of it with `pandas.concat(x)`"),
    ("pyarrow", "Dataset", "Read it with `.to_table()`"),
    ("pyarrow", "RecordBatchReader", "Read it with `.read_all()`"),
    ("dask", "", "Convert it with `.compute()`"),
    ("ray", "Dataset", "Convert it with `.to_pandas()`"),
    ("datasets.dataset_dict", "DatasetDict", 'Convert one of its splits: `x["train"].to_pandas()`'),
    (
        "datasets.iterable_dataset",
        "IterableDataset",
        "Convert some of its rows: `pandas.DataFrame(x.take(1000))`",
    ),
    ("datasets.arrow_dataset", "Dataset", "Convert it with `.to_pandas()`"),
    ("xarray", "Dataset", "Convert it with `.to_dataframe()`"),
    ("duckdb", "", "Convert it with `.fetch_arrow_table()`"),
    ("cupy", "", "Convert it with `.get()`"),
    ("cudf", "", "Convert it with `.to_pandas()`"),
    ("h5py", "Group", 'Name one of its data sets: `x["name"]`'),
    ("zarr", "Group", 'Name one of its arrays: `x["name"]`'),
    ("PIL", "Image", "Convert it with `np.asarray(x)[None]`, which is one row"),
    ("tensorflow", "DatasetV2", BATCHES),
    ("tensorflow", "SparseTensor", "Convert it with `tf.sparse.to_dense`"),
    ("tensorflow", "RaggedTensor", "Convert it with `.to_tensor()`"),
    ("keras", "KerasTensor", "It is a part of a model, and has no rows: pass arrays"),
    ("keras", "PyDataset", COLLECT),
    ("torch", "DataLoader", COLLECT),
    ("torch", "Dataset", "Read it in batches: `torch.utils.data.DataLoader(x, batch_size=32)`"),
    ("io", "IOBase", "Read it, for example with `pandas.read_csv(x)`"),
    ("_io", "_IOBase", "Read it, for example with `pandas.read_csv(x)`"),
    ("_csv", "reader", "Read the file with `pandas.read_csv(path)`"),
    ("csv", "DictReader", "Read the file with `pandas.read_csv(path)`"),
    ("sqlite3", "Cursor", "Read the rows with `pandas.read_sql(query, connection)`"),
)
"""Modules and names of types (`""` for any), with the way to convert objects of these types."""

SHOWN = (bool, int, float, complex, str, type(None))
"""Types whose values errors show. The text of other objects may be long, or run a Spark job."""


def refused(name: str, rule: str, value: Any, reason: object = "") -> TypeError:
    """Make the error for data of a kind that kspark does not read.

    Args:
        name: String, name of the argument.
        rule: String, the kinds that it may have.
        value: The data. Errors name its type, and do not print it.
        reason: The error of its own with which it cannot be read. Defaults to `""`.
    """
    text = f"`{name}` must be {rule}. Received: {name}={shown(value)}"
    if reason:
        text += f", which cannot be read: {str(reason).splitlines()[0][:200]}"
    advice = way_out(value)
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
    if advice := conversion(value):
        return advice
    if isinstance(value, Iterator):
        return (
            "Collect its items in NumPy arrays: rows with `np.stack(list(...))`, batches with "
            "`np.concatenate`, and as many as you want with `itertools.islice`"
        )
    if isinstance(value, AsyncIterable):
        return "Collect its items in a list first: `[item async for item in x]`"
    if isinstance(value, bytes | bytearray | memoryview):
        return "Convert it with `np.frombuffer(x, dtype)`"
    if isinstance(value, Set):
        return "A set has no order: pass a list or an array"
    if isinstance(value, str | list | tuple | Mapping) or hasattr(type(value), "__array__"):
        return ""
    if callable(getattr(type(value), "to_pandas", None)):
        return "Convert it with `.to_pandas()`"
    if isinstance(value, Iterable):
        return "Convert it with `np.array(list(x))`"
    return ""


def conversion(value: Any) -> str:
    """Return how to convert an object of a type in `CONVERSIONS`, or an empty string."""
    kinds = [(f"{kind.__module__}.", kind.__name__) for kind in type(value).__mro__]
    for module, name, advice in CONVERSIONS:
        if any(m.startswith(f"{module}.") and name in ("", n) for m, n in kinds):
            return collecting(value) if advice is BATCHES else advice
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
        ValueError: If values of it are masked.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        rule = "an array without masked values. Fill them with `np.ma.filled(x, 0)`"
        raise invalid(name, rule, Described("an array with masked values"))
    if way_out(value):
        raise refused(name, ROWS, value)
    try:
        array = host_array(value)
    except Exception as error:  # Other libraries raise errors of many classes.
        raise refused(name, ROWS, value, error) from error
    if array.ndim == 0:
        raise refused(name, ROWS, value)
    return array


def no_labels(x: Any, outputs: Sequence[str]) -> ValueError:
    """Make the error for data without labels. Rows with named parts may have some in them.

    Args:
        x: The user's features.
        outputs: Sequence of strings, the outputs that need labels.
    """
    rule, found = f"labels for the outputs {list(outputs)}", "None"
    fields = getattr(getattr(x, "dtype", None), "names", None)
    if fields or (isinstance(x, list | tuple) and x and isinstance(x[0], Mapping)):
        found += f", with rows that have named parts. Pass them as a table, and {NAMED}: "
        found += "`x=pandas.DataFrame(rows)`"
    return invalid("y", rule, Described(f"y={found}"))
