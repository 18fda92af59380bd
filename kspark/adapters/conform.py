"""Convert data to the dtypes and shapes that a model takes, with errors that name the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from numbers import Number
from typing import Any

import numpy as np

from kspark.adapters.loose import KINDS, alike_or_rows, as_row, kinds_of_rows, rounded
from kspark.shards import RAGGED, RAW, STORABLE, TEXT, ArraySpec, Features, SparseRows
from kspark.shards.ragged import kind_of, one_per_row

Shape = tuple[int | None, ...]

TIMES = 'Convert them to numbers, for example with `.astype("datetime64[s]").astype("int64")`'

ADVICE = {
    "V": "Convert them with `numpy.lib.recfunctions.structured_to_unstructured`, or make a table "
    "of their fields with `pandas.DataFrame`",
    "M": TIMES,
    "m": 'Convert them to numbers with `.astype("int64")`',
    "c": "Make two numbers of each: `np.stack([x.real, x.imag], axis=-1)`",
    "dict": "Make a table of the rows with `pandas.DataFrame(rows)`, and name its columns",
    "complex": "Make two numbers of each: `np.stack([x.real, x.imag], axis=-1)`",
    "datetime": TIMES,
    "date": TIMES,
    "Timestamp": TIMES,
    "bytes": "Decode text, and make arrays of images",
    "null": "Drop or fill them before; features may have nulls if `preprocess` fills them",
    "lengths": "Features may have different lengths if `preprocess` pads them",
}
"""How to convert values that are no numbers, by NumPy's letter for their kind or Python's type, and
rows that no array holds."""


@dataclass(frozen=True)
class Place:
    """The origin of some rows, for error messages.

    Attributes:
        name: String, the argument or column.
        partition: Integer, or `None` for data on the driver.
        first_row: Integer, index of the first row in the partition.
        items: Integer, number of values per row.
    """

    name: str
    partition: int | None = None
    first_row: int = 0
    items: int = 1

    def error(self, rule: str, found: object, row: int | None = None) -> ValueError:
        """Make the error "NAME must hold RULE. Received: FOUND in row R of partition P"."""
        where = "" if row is None else f" in row {self.first_row + row // self.items}"
        if self.partition is not None:
            where += f" of partition {self.partition}"
        return ValueError(f"{self.name} must hold {rule}. Received: {found}{where}")


def conform(values: Features, spec: ArraySpec, floatx: str, place: Place) -> Any:
    """Convert rows to the dtype and shape of a spec.

    Args:
        values: Array whose first axis is the row, or `SparseRows`.
        spec: `ArraySpec`.
        floatx: String, dtype of floating point data if the spec has no dtype.
        place: `Place` of the rows, for errors.

    Returns:
        An array or `SparseRows`, as `values` are: `values` itself if nothing had to change. Text
        is an object array of `str`.

    Raises:
        ValueError: If the conversion would change values, as for text in place of
            numbers, fractions in place of integers, or nulls; or the shape differs.
    """
    return reshaped(cast(values, spec.dtype, floatx, place), spec, place)


def reshaped(values: Features, spec: ArraySpec, place: Place) -> Any:
    """Reshape rows to the shape of a spec; see `fit_shape`.

    Raises:
        ValueError: If they do not fit.
    """
    found = values.shape[1:]
    shape = fit_shape(found, spec.shape)
    if shape is None:
        raise place.error(f"examples of shape {shown(spec.shape)}", f"examples of shape {found}")
    return values if shape == found else values.reshape(len(values), *shape)


def fit_shape(found: tuple[int, ...], expected: Shape | None) -> tuple[int, ...] | None:
    """Return the shape that examples get.

    Flat examples can take any shape with the same number of elements, in row-major
    order. Other examples must have the expected shape, except for a last axis of 1.

    Args:
        found: Tuple of integers, the shape of the examples.
        expected: Tuple of integers, with `None` for any length; or `None` for any shape.

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
    """Whether a shape equals the expected one, in which `None` stands for any length."""
    pairs = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(e in (None, f) for f, e in pairs)


def fill(expected: Shape, items: int) -> tuple[int, ...] | None:
    """Replace the only `None` in `expected`, if there is one, so that it has `items` elements."""
    known = prod(n for n in expected if n is not None)
    unknown = expected.count(None)
    if unknown == 0:
        return expected if known == items else None  # type: ignore[return-value]
    if unknown > 1 or known == 0 or items % known:
        return None
    return tuple(items // known if n is None else n for n in expected)


def shown(shape: Shape | None) -> str:
    """Return the text of a shape for errors."""
    return "any" if shape is None else str(shape)


def cast(values: Features, dtype: str, floatx: str, place: Place) -> Any:
    """Cast rows to a dtype, without changing values except by rounding to floats.

    Args:
        values: Array or `SparseRows`.
        dtype: String, name of a NumPy dtype, `"string"`, `""` to keep the dtype of the
            data, `"storable"` to keep that of bytes, too, or `"raw"` to keep that of all.
        floatx: String, dtype of floating point numbers if `dtype` is `""` or `"storable"`.
        place: `Place` of the rows, for errors.

    Raises:
        ValueError: If the values are of another kind, or the cast would change them.
    """
    if dtype == RAW or (dtype == STORABLE and holds_bytes(values)):
        return raw(values, place)
    if dtype == STORABLE:
        if values.dtype == object and kind_of(np.asarray(values)) == RAGGED:
            return rounded(raw(values, place), floatx)
        dtype = ""
    if isinstance(values, np.ndarray) and values.dtype.kind in "OU":
        values = unboxed(values, place)
    is_text = values.dtype == object
    if values.dtype.kind not in "biufO" or is_text != (dtype == TEXT or (is_text and not dtype)):
        kind = "text" if dtype == TEXT else "numbers"
        if is_text:
            raise place.error(kind, "text")
        raise advised(place.error(kind, values_of_kind(values.dtype)), values.dtype.kind)
    if is_text:
        return values
    if not dtype:
        dtype = floatx if values.dtype.kind == "f" else values.dtype.name
    return cast_numbers(values, np.dtype("float32" if dtype == "bfloat16" else dtype), place)


def holds_bytes(values: Features) -> bool:
    """Whether rows are bytes, such as the files of images: NumPy's own, or objects."""
    if values.dtype.kind != "O" or not isinstance(values, np.ndarray):
        return values.dtype.kind == "S"
    return values.size > 0 and all(isinstance(value, bytes) for value in values.flat)


def raw(values: Features, place: Place) -> Features:
    """Return numbers in their own dtype, text and bytes as objects, and any other rows as objects.

    Raises:
        ValueError: If the values are of another kind, or of several kinds.
    """
    if not isinstance(values, np.ndarray):
        return values
    if values.dtype.kind in "SU":
        return values.astype(object)
    if values.dtype.kind not in "biufO":
        raise place.error("numbers, text or bytes", f"{values.dtype} values")
    if values.dtype.kind != "O" or kind_of(values) != RAGGED:
        return values
    kinds = kinds_of_rows(values)
    for kind, row in kinds.items():
        if kind not in KINDS:
            rule = "numbers, text or bytes, or arrays of these"
            raise advised(place.error(rule, kind, row), kind)
    if len(kinds) > 1:
        first, other, *_ = kinds
        raise place.error(f"{first} as in row {place.first_row}", other, kinds[other])
    return alike_or_rows(values)


def cast_numbers(values: Features, dtype: np.dtype, place: Place) -> Features:
    """Cast numbers to another dtype of numbers.

    Raises:
        ValueError: If an integer or boolean dtype cannot represent a value exactly.
    """
    if dtype == values.dtype:
        return values
    sparse = values if isinstance(values, SparseRows) else None
    numbers = values.data if isinstance(values, SparseRows) else values
    with np.errstate(invalid="ignore", over="ignore"):
        out = numbers.astype(dtype)
        wrong = None if dtype.kind == "f" else out != numbers
    if wrong is not None and wrong.any():
        at = int(np.flatnonzero(wrong.reshape(-1))[0])
        row = at // max(1, prod(values.shape[1:])) if sparse is None else sparse.row_of(at)
        kind = "0 or 1" if dtype.kind == "b" else f"whole numbers that fit {dtype}"
        raise place.error(kind, numbers.reshape(-1)[at], row)
    return out if sparse is None else sparse.with_data(out)


def values_of_kind(dtype: np.dtype) -> str:
    """Return what errors call values of a dtype."""
    return "structured values" if dtype.names else f"{dtype} values"


def advised(error: ValueError, kind: str) -> ValueError:
    """Add to an error how values of a kind of `ADVICE` are converted."""
    return ValueError(f"{error}. {ADVICE[kind]}") if kind in ADVICE else error


def unboxed(values: np.ndarray, place: Place) -> np.ndarray:
    """Convert an array of Python objects to numbers, or to an object array of text.

    Raises:
        ValueError: If the values are neither numbers nor text, or some are null.
    """
    if values.dtype.kind == "U":
        return values.astype(object)
    flat = values.reshape(-1).tolist()
    if all(isinstance(v, str) for v in flat):
        return values
    kinds = (str,) if isinstance(flat[0], str) else (Number, np.bool_)
    for at, value in enumerate(flat):
        if not isinstance(value, kinds):
            found = "null" if value is None else type(value).__name__
            items = max(1, prod(values.shape[1:]))
            is_mixed = isinstance(value, str | Number)  # Which of both is wrong, nobody can tell.
            rule = "numbers, or text, and not both" if is_mixed else "numbers, or text"
            raise advised(place.error(rule, found, at // items), found)
    whole = all(isinstance(v, int | np.integer) for v in flat)
    try:
        return values.astype(np.int64 if whole else np.float64)
    except (OverflowError, TypeError) as error:
        raise place.error("real numbers of 64 bits", error) from error


def stack(values: Sequence[Any], place: Place, *, is_loose: bool = False) -> np.ndarray:
    """Stack one value per row: numbers, strings, bytes, arrays, (nested) lists, or vectors.

    Args:
        values: Sequence with at least one row.
        place: `Place` of the rows, for errors.
        is_loose: Boolean, whether rows may have different shapes, and be null. Then the result has
            one object per row. Defaults to `False`.

    Raises:
        ValueError: If the rows have different shapes.
    """
    if is_loose:
        try:
            found = stack(values, place)
        except ValueError:
            return one_per_row(map(as_row, values), len(values))
        is_plain = found.dtype != object or kind_of(found) != RAGGED
        return found if is_plain else one_per_row(map(as_row, values), len(values))
    for row, value in enumerate(values):
        if hasattr(value, "tocsr"):  # NumPy cannot stack sparse matrices of SciPy.
            rule = "arrays, without sparse matrices among them"
            raise place.error(rule, type(value).__name__, row)
    if any(hasattr(v, "toArray") for v in values):  # Spark's vectors and matrices
        values = [v.toArray() if hasattr(v, "toArray") else v for v in values]
    if isinstance(values[0], bytes | bytearray):  # NumPy's own dtype cuts zeros at the end off.
        out = [bytes(v) if isinstance(v, bytearray) else v for v in values]
        return np.fromiter(out, object, len(out))
    try:
        if isinstance(values[0], np.ndarray):
            stacked = np.stack([np.asarray(v) for v in values])
        else:
            stacked = np.asarray(values)
            if stacked.dtype.kind == "U":  # NumPy makes text of numbers, too, such as "nan".
                objects = np.asarray(values, object)
                stacked = stacked if all(isinstance(v, str) for v in objects.flat) else objects
    except ValueError as error:
        raise ragged(values, place) or error from None
    return unnested(stacked, place) if stacked.dtype == object else stacked


def unnested(values: np.ndarray, place: Place) -> np.ndarray:
    """Stack the elements of an array of objects, if they are arrays, lists or vectors."""
    flat = values.reshape(-1)
    if not len(flat) or np.ndim(flat[0]) == 0:
        return values
    items = place.items * max(1, prod(values.shape[1:]))
    inner = stack(flat.tolist(), replace(place, items=items))
    return inner.reshape(*values.shape, *inner.shape[1:])


def ragged(values: Sequence[Any], place: Place) -> ValueError | None:
    """Make the error for the first row that differs from the others, or `None` if none does."""
    for row, value in enumerate(values):
        if value is None:
            return advised(place.error("no nulls", "null", row), "null")
    shapes = [shape_of(v) for v in values]
    for row, shape in enumerate(shapes):
        if shape is None:
            rule = "examples whose lists have equal lengths"
            return advised(place.error(rule, "lists of different lengths", row), "lengths")
        if shape != shapes[0]:
            rule = f"examples of one shape, {shapes[0]} as in row {place.first_row}"
            return advised(place.error(rule, f"shape {shape}", row), "lengths")
    return None


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Return the shape of one example, or `None` for lists of different lengths."""
    try:
        return np.shape(value)
    except ValueError:
        return None
