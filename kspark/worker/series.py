"""Convert the pandas series that Spark passes to functions of SQL before Spark 4.1."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from kspark.adapters.conform import Place
from kspark.adapters.sparse import to_rows
from kspark.shards import Features


def series_array(name: str, series: Any, is_loose: bool = False) -> Features:
    """Convert a column to an array or `SparseRows` with one row per value.

    Args:
        name: String, name of the column.
        series: `pandas.Series`, or a `pandas.DataFrame` of a column of vectors.
        is_loose: As for `to_rows`. Then NaN among numbers is a null. Defaults to `False`.

    Raises:
        ValueError: If there are nulls, or NaN, to which pandas converts nulls of numbers.
    """
    place = Place(f"Column {name!r}")
    rows = series["type"] if hasattr(series, "columns") else series
    if not is_loose and rows.isna().any():
        raise place.error("no nulls", "null", int(rows.isna().to_numpy().argmax()))
    if hasattr(series, "columns"):  # Spark passes a vector as a table of its fields.
        parts = [pa.array(series[c], from_pandas=True) for c in series.columns]
        column = pa.StructArray.from_arrays(parts, names=list(series.columns))
    else:
        # pandas has NaN for nulls of numbers, of which `preprocess` gets `None`, as in `transform`.
        column = pa.array(series, from_pandas=is_loose and series.dtype.kind == "f")
    return to_rows(column, place, is_loose=is_loose)
