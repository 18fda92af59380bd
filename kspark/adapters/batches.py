"""Batches of streams: features, labels and sample weights as NumPy arrays."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kspark.adapters.conform import Place
from kspark.adapters.loose import kinds_of_rows
from kspark.adapters.refusals import conversion, refused
from kspark.adapters.sparse import by_rows, is_matrix, with_first_rows
from kspark.adapters.tensors import decoded, host_array
from kspark.errors import Described, invalid
from kspark.shards import RAGGED, Chunk, Features, InputSpec
from kspark.shards.ragged import kind_of

ANY = "empty rows or nulls"
"""The kind of values that go with text and with numbers."""

Batch = tuple[Any, Any, Any]
"""Features, labels and sample weights of a batch; the last two may be `None`."""

Kinds = dict[str, list[str]]
"""Whether each array of the features, labels and sample weights has text or numbers."""


def unpacked(batch: Any) -> Batch:
    """Return features, labels and sample weights of a batch, as Keras unpacks it.

    Raises:
        ValueError: If it is a tuple of another length than 1 to 3.
    """
    parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    if not 1 <= len(parts) <= 3:
        rule = "data whose batches are x, (x, y) or (x, y, sample_weight)"
        raise invalid("x", rule, Described(f"a batch that is a tuple of {len(parts)}"))
    x, y, sample_weight = (*map(on_host, parts), None, None)[:3]
    if isinstance(parts[0], os.PathLike):
        rule = "a list of paths, and not an iterator: `list(paths)`"
        raise invalid("x", rule, Described("an iterator of paths"))
    if any(np.ndim(part) == 0 for one in (x, y) if one is not None for part in parts_of(one)):
        raise single_rows()
    return x, y, sample_weight


def single_rows() -> ValueError:
    """Make the error for rows in place of batches."""
    rule = (
        "data that gives batches of rows: make arrays of single rows, with `np.stack(list(rows))`, "
        "or `x, y = map(np.stack, zip(*rows))` if they have labels"
    )
    return invalid("x", rule, Described("single rows"))


def parts_of(value: Any) -> Sequence[Any]:
    """Return the arrays of a value: the value itself, or those of a list or dictionary."""
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, tuple | list) else [value]


def num_rows(array: Any) -> int:
    """Return the length of the first axis. Sparse matrices have no `len`."""
    return int(array.shape[0])


def on_host(value: Any) -> Any:
    """Convert tensors to NumPy arrays, in the same structure.

    `None` stays as it is, and sparse matrices of SciPy are divided into rows.

    Bytes become text if all of them are UTF-8; the files of images are not.

    Raises:
        TypeError: If a part is no array, such as a ragged tensor.
    """
    if is_matrix(value):
        return by_rows(value)
    if isinstance(value, Mapping):
        return {name: on_host(part) for name, part in value.items()}
    if isinstance(value, tuple | list) and any(hasattr(part, "shape") for part in value):
        return [on_host(part) for part in value]
    if value is None:
        return None
    if conversion(value):
        raise refused("x", "data whose batches are arrays", value)
    array = host_array(value)
    is_bytes = array.dtype.kind == "S" or (array.size and isinstance(array.flat[0], bytes))
    if is_bytes:  # TensorFlow holds text as bytes.
        with contextlib.suppress(ValueError):
            return decoded(array, Place("`x`"))
    return array


def first_rows(value: Any) -> Any:
    """Return the first row of each array or sparse matrix as an array, in the same structure."""
    if isinstance(value, Mapping):
        return {name: first_rows(part) for name, part in value.items()}
    return list(map(first_rows, value)) if isinstance(value, list) else with_first_rows(value)[:1]


def is_row(x: Any, spec: InputSpec) -> bool:
    """Whether the features of a batch are those of one row, and not of a batch of numbers."""
    shape = spec.inputs[0].shape
    if len(spec.inputs) > 1 or not shape or None in shape or shape[0] == 1:
        return False
    return getattr(x, "shape", None) == shape


def kinds_of(chunk: Chunk) -> Kinds:
    """Return the kinds of the arrays of a batch."""
    groups = {"x": chunk.x, "y": chunk.y, "sample_weight": chunk.sample_weight}
    return {name: list(map(kind_of_values, arrays)) for name, arrays in groups.items()}


def kind_of_values(array: Features) -> str:
    """Return whether an array has text or numbers, which may be in rows of different shapes.

    `ANY` if all of these are empty or null.
    """
    if isinstance(array, np.ndarray) and array.dtype == object and kind_of(array) == RAGGED:
        kinds = kinds_of_rows(array)
        return ("numbers" if "numbers" in kinds else "text") if kinds else ANY
    if array.dtype == object:
        return "text"
    return "numbers" if all(array.shape[1:]) else ANY


def check_alike(first: Kinds, kinds: Kinds) -> None:
    """Refuse a batch with other arrays than the first one.

    Raises:
        ValueError: If there are more or fewer, or text in place of numbers.
    """
    differing = [name for name in first if not are_alike(first[name], kinds[name])]
    if differing:
        before, now = ({name: some[name] for name in differing} for some in (first, kinds))
        raise ValueError(
            "All batches must have the same inputs, labels and sample weights, and the same kinds "
            f"of values in each. Received: {now} after {before}"
        )


def are_alike(first: Sequence[str], kinds: Sequence[str]) -> bool:
    """Whether two batches have as many arrays, of the same kinds."""
    pairs = zip(first, kinds, strict=False)
    return len(first) == len(kinds) and all(a == b or ANY in (a, b) for a, b in pairs)


@contextmanager
def placed(worker: int, batch: int) -> Iterator[None]:
    """Name the worker and the batch in errors about a batch."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In batch {batch} of worker {worker}: {error}") from error
