"""Adapters: turn the user's data into distributed examples.

`adapt` finds the kind of input in `KINDS`. The modules are:

```
arrays.py      numpy arrays, one or several; lists of numbers or rows; anything with `__array__`
rdd.py         RDDs of (x, y) or (x, y, sample_weight)
dataframe.py   Spark DataFrames
sparse.py      sparse matrices of SciPy, and sparse vectors, of which the rows stay sparse
tensors.py     tensors of other libraries, tables of Polars and pandas-on-Spark
tables.py      pandas DataFrames, pyarrow Tables
streams.py     data that gives batches once: tf.data, PyDatasets, DataLoaders, generators
factories.py   functions of (worker, num_workers) that make such data beside each worker
users_data.py  what these functions return
batches.py     the batches of both
files.py       Parquet files, found by `file_paths.py`
records.py     TFRecord files
array_files.py files of NumPy, data sets of h5py and zarr
spooled.py     rows that were spooled before
```

On the executors, each kind is converted to `Chunk`s, which are columnar and have the dtypes
and shapes that the model takes. Values that a conversion would change are an error, which
names the column, the row and the value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from kspark.adapters.array_files import Archive, adapt_archive, loaded
from kspark.adapters.arrays import adapt_arrays
from kspark.adapters.base import Columns, Examples
from kspark.adapters.dataframe import adapt_frame
from kspark.adapters.factories import Factory, adapt_factory
from kspark.adapters.files import adapt_files
from kspark.adapters.rdd import adapt_rdd
from kspark.adapters.records import adapt_records
from kspark.adapters.refusals import ACCEPTED, refused, way_out
from kspark.adapters.sparse import by_rows, is_matrix
from kspark.adapters.spooled import Spooled, adapt_spooled
from kspark.adapters.streams import Stream, adapt_stream, as_stream
from kspark.adapters.tables import adapt_pandas, adapt_table, head, is_array_like, is_pandas
from kspark.adapters.tensors import plain_table
from kspark.classic import RDD
from kspark.errors import invalid
from kspark.files.records import RecordFiles
from kspark.files.table import ParquetFiles
from kspark.shards import InputSpec

__all__ = [
    "Columns",
    "Examples",
    "Factory",
    "Spooled",
    "Stream",
    "adapt",
    "head",
    "is_table",
    "readable",
]

Matches = Callable[[object], bool]
Adapter = Callable[[SparkSession, Any, Any, Any, InputSpec, Columns], Examples]


def is_table(value: object) -> bool:
    """Whether a value has named columns."""
    return is_pandas(value) or isinstance(
        value, pa.Table | DataFrame | ParquetFiles | RecordFiles | Archive
    )


KINDS: tuple[tuple[Matches, Adapter], ...] = (
    (lambda value: isinstance(value, Spooled), adapt_spooled),
    (is_pandas, adapt_pandas),
    (lambda value: isinstance(value, pa.Table), adapt_table),
    (lambda value: isinstance(value, DataFrame), adapt_frame),
    (lambda value: isinstance(value, RDD), adapt_rdd),
    (lambda value: isinstance(value, Stream), adapt_stream),
    (lambda value: isinstance(value, Factory), adapt_factory),
    (lambda value: isinstance(value, ParquetFiles), adapt_files),
    (lambda value: isinstance(value, RecordFiles), adapt_records),
    (lambda value: isinstance(value, Archive), adapt_archive),
    (is_array_like, adapt_arrays),  # last: a pandas DataFrame has `__array__`, too
)
"""The kinds of input, in the order in which `adapt` tries them: a test, and an adapter."""


def readable(value: Any, *, limited: bool = False) -> Any:
    """Return data of the user in one of `KINDS`, if it is of a kind that can be converted.

    Args:
        value: The data.
        limited: Boolean, whether a number of rows will be set as the limit of a `Stream`, so that
            the data need not have an end. Defaults to `False`.

    Raises:
        ValueError: If `value` gives batches, and the first one is not usable; or it is the path of
            a file of NumPy that is not usable; or it is spooled rows whose files were deleted.
        OSError: If a file of NumPy cannot be read.
        ClusterError: If it is spooled rows of a session that was stopped.
    """
    if isinstance(value, Spooled):
        value.check_open()
    return as_stream(by_rows(loaded(plain_table(value))), limited=limited)


def adapt(
    spark: SparkSession,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    spec: InputSpec,
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    num_workers: int | None = None,
    count: int | None = None,
) -> Examples:
    """Turn the user's data into distributed examples.

    Args:
        spark: `SparkSession`.
        x: The input, of one of `KINDS`.
        y: Labels, if `x` does not contain them. Defaults to `None`.
        sample_weight: Sample weights, if `x` does not contain them. Defaults to `None`.
        spec: `InputSpec` of the model.
        columns: `Columns` of tables.
        num_workers: Integer, number of partitions. Defaults to `None`, the partitions of the
            input.
        count: Integer, number of rows to use, the first ones. Defaults to `None`, all.

    Returns:
        `Examples`.

    Raises:
        TypeError: If no kind of input matches.
        ValueError: If `x` does not fit the model, or has no rows.
    """
    if num_workers is not None and num_workers < 1:
        raise invalid("num_workers", "an integer >= 1, or None", num_workers)
    x, y, sample_weight = (
        by_rows(loaded(x)),
        by_rows(loaded(y, archives=False)),
        by_rows(loaded(sample_weight, archives=False)),
    )
    for matches, adapter in KINDS:
        if matches(x):
            if adapter is adapt_arrays and way_out(x) and not is_matrix(x):
                break  # a list, a dictionary or an array of another library
            examples = adapter(spark, x, y, sample_weight, spec, columns)
            if count is not None:
                examples = examples.first_rows(count)
            if num_workers is None or isinstance(x, Spooled):  # Only a fit moves spooled rows.
                return examples
            return examples.repartition(num_workers)
    raise refused("x", ACCEPTED, x)
