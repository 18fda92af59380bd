"""Rows of different shapes, and nulls, of the user's Python objects: see `kspark.shards.ragged`."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np

from kspark.shards.ragged import alike, as_rows, one_per_row

TITLES = ((str, "text"), (bytes, "bytes"), (Number, "numbers"), (np.bool_, "numbers"))
"""Types of values, and their kinds."""

KINDS = ("numbers", "text", "bytes")
"""The kinds of values that rows of different shapes may have."""


def kinds_of_rows(values: np.ndarray) -> dict[str, int]:
    """Return the kinds of the values in rows, see `kinds_in`, with the first row of each."""
    kinds: dict[str, int] = {}
    for row, value in enumerate(values):
        for kind in kinds_in(value):
            kinds.setdefault(kind, row)
    return kinds


def kinds_in(value: Any) -> set[str]:
    """Return the kinds of the values in a row, without nulls: those of `KINDS`, or other types.

    An empty array has none: it goes with rows of any kind.
    """
    if isinstance(value, np.ndarray):
        if not value.size:
            return set()
        if value.dtype.kind in "biuf":
            return {"numbers"}
        if value.dtype != object:
            return {f"{value.dtype} values"}
        return set().union(*map(kinds_in, value.flat))
    if value is None:
        return set()
    for kind, title in TITLES:
        if isinstance(value, kind):
            return {title}
    return {type(value).__name__}


def rounded(values: Any, floatx: str) -> Any:
    """Return rows with the floating point numbers of their arrays in another dtype."""

    def one(row: Any) -> Any:
        is_array = isinstance(row, np.ndarray) and row.dtype.kind == "f"
        return row.astype(floatx) if is_array or isinstance(row, np.floating) else row

    if values.dtype != object:
        return values.astype(floatx) if values.dtype.kind == "f" else values
    return one_per_row(map(one, values), len(values))


def as_row(value: Any) -> Any:
    """Return a value of a row: lists and vectors as arrays, which may have arrays in them."""
    if hasattr(value, "toArray"):
        return value.toArray()
    if isinstance(value, bytearray):
        return bytes(value)
    if not isinstance(value, list | tuple | np.ndarray):
        return value
    try:
        found = np.asarray(value)
    except ValueError:
        found = np.empty(0, object)
    if found.dtype.kind == "U":  # Objects, because NumPy makes text of numbers among text.
        return np.asarray(value, object)
    is_plain = found.dtype.kind not in "OS"  # NumPy's own bytes lack zeros at their end.
    return found if is_plain else alike(one_per_row(map(as_row, value), len(value)))


def alike_or_rows(values: np.ndarray) -> np.ndarray:
    """Return rows as one array of numbers if they have one shape, and else one object per row."""
    found = alike(one_per_row(map(as_row, values), len(values)))
    return found if found.dtype != object else as_rows(found)
