"""Rows on the driver or an executor, converted to the types and shapes of a model's arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from kspark.adapters.conform import Place, cast, conform
from kspark.adapters.structure import part_name
from kspark.shards import RAW, STORABLE, TEXT, ArraySpec, Chunk, Features, InputSpec


def conform_chunk(chunk: Chunk, spec: InputSpec, partition: int | None, first_row: int) -> Chunk:
    """Convert rows to the dtypes and shapes of a spec.

    Raises:
        ValueError: If a conversion is not possible without changing values.
    """
    return mapped(chunk, spec, partial(conform, floatx=spec.floatx), partition, first_row)


def mapped(
    chunk: Chunk,
    spec: InputSpec,
    change: Callable[..., Any],
    partition: int | None,
    first_row: int,
) -> Chunk:
    """Make a chunk of the results of `change(array, spec, place=place)` for every array."""
    weights = [ArraySpec("sample_weight", None, spec.floatx)] * len(chunk.sample_weight)

    def group(name: str, arrays: Sequence[Any], specs: Sequence[ArraySpec]) -> list[Any]:
        places = [Place(part_name(name, specs, i), partition, first_row) for i in range(len(specs))]
        triples = zip(arrays, specs[: len(arrays)], places, strict=False)
        return [change(array, one, place=place) for array, one, place in triples]

    return Chunk(
        group("x", chunk.x, spec.inputs),
        group("y", chunk.y, spec.targets),
        group("sample_weight", chunk.sample_weight, weights),
    )


def narrowed(values: Features, spec: ArraySpec, floatx: str, place: Place) -> Any:
    """Cast rows to the dtype of a spec, unless their own is smaller and casts without a loss."""
    wide = np.dtype(spec.dtype) if spec.dtype not in ("", RAW, STORABLE, TEXT, "bfloat16") else None
    if wide is not None and values.dtype.kind in "biuf" and values.itemsize < wide.itemsize:
        if np.can_cast(values.dtype, wide, "safe"):
            return values
    return cast(values, spec.dtype, floatx, place)
