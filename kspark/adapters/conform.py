"""From what was found in the data to what a model takes: shapes, dtypes, errors that say where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from numbers import Number
from typing import Any

import numpy as np

from kspark.shards import TEXT, ArraySpec

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Place:
    """Where some rows come from, for error messages.

    Attributes:
        name: String, the argument or column.
        partition: Integer, or `None` for data of the driver.
        first_row: Integer, rows before these in the partition.
        items: Integer, how many of the values at hand are one row.
    """

    name: str
    partition: int | None = None
    first_row: int = 0
    items: int = 1

    def error(self, rule: str, found: object, row: int | None = None) -> ValueError:
        """An error "NAME must hold RULE. Received: FOUND in row R of partition P"."""
        where = "" if row is None else f" in row {self.first_row + row // self.items}"
        if self.partition is not None:
            where += f" of partition {self.partition}"
        return ValueError(f"{self.name} must hold {rule}. Received: {found}{where}")


def conform(values: np.ndarray, spec: ArraySpec, floatx: str, place: Place) -> np.ndarray:
    """Bring rows to a spec's dtype and shape.

    Args:
        values: Array whose first axis is the row.
        spec: `ArraySpec`.
        floatx: String, dtype of floating point data when the spec leaves it open.
        place: `Place` that errors name.

    Returns:
        An array, `values` itself if nothing had to change. Text is an object
        array of `str`.

    Raises:
        ValueError: If the values cannot be brought there without losing any:
            another shape, text for numbers, fractions for integers, nulls.
    """
    return reshaped(cast(values, spec.dtype, floatx, place), spec, place)


def reshaped(values: np.ndarray, spec: ArraySpec, place: Place) -> np.ndarray:
    """Bring rows to a spec's shape; see `fit_shape`.

    Raises:
        ValueError: If they do not fit.
    """
    found = values.shape[1:]
    shape = fit_shape(found, spec.shape)
    if shape is None:
        raise place.error(f"examples of shape {shown(spec.shape)}", f"examples of shape {found}")
    return values if shape == found else values.reshape(len(values), *shape)


def fit_shape(found: tuple[int, ...], expected: Shape | None) -> tuple[int, ...] | None:
    """The shape to give to examples.

    Flat examples take any shape of as many elements, row by row. Others must
    have the shape already, but for a last axis of 1.

    Args:
        found: Tuple of integers, the examples' shape.
        expected: Tuple, `None` in it for any length; or `None` for any shape.

    Returns:
        The shape, or `None` if the examples do not fit.
    """
    if expected is None or matches(found, expected):
        return found
    if found and found[-1] == 1 and matches(found[:-1], expected):
        return found[:-1]
    if expected[-1:] == (1,) and matches((*found, 1), expected):
        return (*found, 1)
    if len(found) > 1:
        return None
    return fill(expected, prod(found))


def matches(found: tuple[int, ...], expected: Shape) -> bool:
    """Whether a shape is the expected one, whose `None`s stand for any length."""
    pairs = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(e in (None, f) for f, e in pairs)


def fill(expected: Shape, items: int) -> tuple[int, ...] | None:
    """`expected` with its one `None` (if any) filled in so that it has so many elements."""
    known = prod(n for n in expected if n is not None)
    unknown = expected.count(None)
    if unknown == 0:
        return expected if known == items else None  # type: ignore[return-value]
    if unknown > 1 or known == 0 or items % known:
        return None
    return tuple(items // known if n is None else n for n in expected)


def shown(shape: Shape | None) -> str:
    """A shape as users read it."""
    return "any" if shape is None else str(shape)


def cast(values: np.ndarray, dtype: str, floatx: str, place: Place) -> np.ndarray:
    """Bring rows to a dtype; what would change a value is refused, rounding to a float is not.

    Args:
        values: Array.
        dtype: String, numpy dtype name, `"string"`, or `""` for the data's own.
        floatx: String, what `""` means for floating point numbers.
        place: `Place` that errors name.

    Raises:
        ValueError: If the values are of another kind, or do not fit.
    """
    if values.dtype.kind in "OU":
        values = unboxed(values, place)
    is_text = values.dtype == object
    if values.dtype.kind not in "biufO" or is_text != (dtype == TEXT or (is_text and not dtype)):
        kind = "text" if dtype == TEXT else "numbers"
        raise place.error(kind, "text" if is_text else f"{values.dtype} values")
    if is_text:
        return values
    if not dtype:
        dtype = floatx if values.dtype.kind == "f" else values.dtype.name
    return cast_numbers(values, np.dtype("float32" if dtype == "bfloat16" else dtype), place)


def cast_numbers(values: np.ndarray, dtype: np.dtype, place: Place) -> np.ndarray:
    """Numbers as another kind of numbers.

    Raises:
        ValueError: If an integer or boolean dtype does not hold a value exactly.
    """
    if dtype == values.dtype:
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        out = values.astype(dtype)
        if dtype.kind == "f":
            return out
        wrong = out != values
    if wrong.any():
        at = int(np.flatnonzero(wrong.reshape(-1))[0])
        row = at // max(1, prod(values.shape[1:]))
        kind = "0 or 1" if dtype.kind == "b" else f"whole numbers that fit {dtype}"
        raise place.error(kind, values.reshape(-1)[at], row)
    return out


def unboxed(values: np.ndarray, place: Place) -> np.ndarray:
    """Python objects as an array of numbers, or as an object array of text.

    Raises:
        ValueError: If they are neither, or some are null.
    """
    if values.dtype.kind == "U":
        return values.astype(object)
    flat = values.reshape(-1).tolist()
    if all(isinstance(v, str) for v in flat):
        return values
    for at, value in enumerate(flat):
        if not isinstance(value, Number | np.bool_):
            found = "null" if value is None else type(value).__name__
            items = max(1, prod(values.shape[1:]))
            raise place.error("numbers, or text", found, at // items)
    whole = all(isinstance(v, int | np.integer) for v in flat)
    try:
        return values.astype(np.int64 if whole else np.float64)
    except (OverflowError, TypeError) as error:
        raise place.error("real numbers of 64 bits", error) from error


def stack(values: Sequence[Any], place: Place) -> np.ndarray:
    """One array from one value per row: numbers, strings, arrays, (nested) lists, or vectors.

    Args:
        values: Sequence with at least one row.
        place: `Place` that errors name.

    Raises:
        ValueError: If the rows have different shapes.
    """
    if any(hasattr(v, "toArray") for v in values):  # Spark's vectors and matrices
        values = [v.toArray() if hasattr(v, "toArray") else v for v in values]
    try:
        if isinstance(values[0], np.ndarray):
            return np.stack([np.asarray(v) for v in values])
        return np.asarray(values)
    except ValueError as error:
        raise ragged(values, place) or error from None


def ragged(values: Sequence[Any], place: Place) -> ValueError | None:
    """The error for the first row that keeps `values` from being one array, if it is a row's."""
    for row, value in enumerate(values):
        if value is None:
            return place.error("no nulls", "null", row)
    shapes = [shape_of(v) for v in values]
    for row, shape in enumerate(shapes):
        if shape is None:
            rule = "examples whose lists have equal lengths"
            return place.error(rule, "lists of different lengths", row)
        if shape != shapes[0]:
            rule = f"examples of one shape, {shapes[0]} as in row {place.first_row}"
            return place.error(rule, f"shape {shape}", row)
    return None


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of one example, `None` for lists of different lengths."""
    try:
        return np.shape(value)
    except ValueError:
        return None
