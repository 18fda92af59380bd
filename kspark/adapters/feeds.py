"""Assign columns to inputs and targets, and convert record batches to chunks, without Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from kspark.adapters.base import CHUNK_BYTES, Columns
from kspark.adapters.columns import to_numpy
from kspark.adapters.conform import Place, conform
from kspark.adapters.sparse import row_bytes, to_rows
from kspark.adapters.structure import weight_specs
from kspark.errors import invalid
from kspark.shards import RAW, TEXT, ArraySpec, Chunk, Features, InputSpec, SparseRows
from kspark.shards.sparse import side_by_side

Names = str | Sequence[str]


@dataclass(frozen=True)
class Feed:
    """The columns of one input or target. Several columns are concatenated side by side.

    Attributes:
        spec: `ArraySpec` of the input or target.
        names: Tuple of strings, the columns.
        argument: String, the argument that names the columns, for errors.
    """

    spec: ArraySpec
    names: tuple[str, ...]
    argument: str = "features_col"

    @property
    def title(self) -> str:
        """The name of the columns in errors."""
        first = f"Column {self.names[0]!r}"
        return first if len(self.names) == 1 else f"Columns {', '.join(map(repr, self.names))}"

    def array(self, parts: Sequence[Features], floatx: str, place: Place) -> Any:
        """Join the arrays of the columns, in the dtype and shape of the spec."""
        if len(parts) == 1:
            return conform(parts[0], self.spec, floatx, place)
        self.check_kinds(parts, place)
        flat: Any = [p.reshape(len(p), prod(p.shape[1:])) for p in parts]
        if any(isinstance(p, SparseRows) for p in parts):
            return conform(side_by_side(flat), self.spec, floatx, place)
        return conform(np.concatenate(flat, axis=1), self.spec, floatx, place)

    def check_kinds(self, parts: Sequence[Features], place: Place) -> None:
        """Refuse columns that cannot be joined, because one has text and another one numbers.

        Raises:
            ValueError: If a column is not of the kind that the spec or the first column has.
        """
        kinds = ["text" if p.dtype.kind in "OU" else "numbers" for p in parts]
        wanted = {TEXT: "text", "": kinds[0], RAW: kinds[0]}.get(self.spec.dtype, "numbers")
        for name, part, kind in zip(self.names, parts, kinds, strict=True):
            column = replace(place, name=f"Column {name!r}")
            if kind != wanted:
                raise column.error(wanted, kind)
            if part.dtype.kind not in "biufOU":
                raise column.error(wanted, f"{part.dtype} values")


@dataclass(frozen=True)
class FramePlan:
    """The columns of a table that become inputs, targets and sample weights.

    Attributes:
        x: Tuple of `Feed`, one per input.
        y: Tuple of `Feed`, one per target; empty without labels.
        sample_weight: Tuple of `Feed`: none, one for all targets, or one per target.
        floatx: String, see `InputSpec`.
    """

    x: tuple[Feed, ...]
    y: tuple[Feed, ...]
    sample_weight: tuple[Feed, ...]
    floatx: str

    @property
    def names(self) -> list[str]:
        """The names of all columns that are needed, each once."""
        return list(self.arguments)

    @property
    def arguments(self) -> dict[str, str]:
        """The names of all columns that are needed, with the argument that names each first."""
        feeds = (*self.sample_weight, *self.y, *self.x)
        found = {name: feed.argument for feed in feeds for name in feed.names}
        ordered = (*self.x, *self.y, *self.sample_weight)
        return {name: found[name] for feed in ordered for name in feed.names}

    def chunks(
        self, batch: pa.RecordBatch, partition: int | None, first_row: int
    ) -> Iterator[Chunk]:
        """Yield chunks of a record batch whose columns are those of `names`, in their order.

        Raises:
            ValueError: If the rows do not fit the spec.
        """
        dense = {name for feed in (*self.y, *self.sample_weight) for name in feed.names}
        pairs = zip(self.names, batch.columns, strict=True)
        nbytes = sum(row_bytes(column, dense=name in dense) for name, column in pairs)
        size = max(1, CHUNK_BYTES // max(1, nbytes))
        for start in range(0, batch.num_rows, size):
            rows = batch.slice(start, size)
            columns = dict(zip(self.names, rows.columns, strict=True))
            yield self.chunk(columns, partition, first_row + start)

    def chunk(
        self, columns: Mapping[str, pa.Array], partition: int | None, first_row: int
    ) -> Chunk:
        """Make a chunk of some rows."""

        def array(feed: Feed, convert: Callable[[pa.Array, Place], Features]) -> Any:
            place = Place(feed.title, partition, first_row)
            parts = [
                convert(columns[n], Place(f"Column {n!r}", partition, first_row))
                for n in feed.names
            ]
            return feed.array(parts, self.floatx, place)

        return Chunk(
            [array(f, to_rows) for f in self.x],
            [array(f, to_numpy) for f in self.y],
            [array(f, to_numpy) for f in self.sample_weight],
        )


def plan_frame(columns: Columns, spec: InputSpec) -> FramePlan:
    """Assign columns to inputs, targets and weights.

    Raises:
        ValueError: If the columns named do not match the model's inputs or targets.
    """
    x = feeds(columns.features_col, spec.inputs, "features_col")
    y: tuple[Feed, ...] = ()
    if spec.targets and columns.label_col is not None:
        y = feeds(columns.label_col, spec.targets, "label_col", spec.outputs)
    weights: tuple[Feed, ...] = ()
    if spec.targets and columns.weight_col is not None:
        specs = weight_specs(columns.weight_col, spec)
        outputs = spec.outputs if len(specs) > 1 else ()
        weights = feeds(columns.weight_col, specs, "weight_col", outputs)
    return FramePlan(x, y, weights, spec.floatx)


def feature_names(features_col: Names | Mapping[str, Names]) -> tuple[str, ...]:
    """Return the names of the columns of features, or the keys of a dictionary.

    Raises:
        ValueError: If no column is named, or one is named twice.
    """
    if isinstance(features_col, Mapping):
        names = tuple(features_col)
    else:
        names = as_names(features_col, "features_col")
    if not names or len(set(names)) < len(names):
        raise invalid("features_col", "names of columns, each once", features_col)
    return names


def feeds(
    value: Names | Mapping[str, Names],
    specs: Sequence[ArraySpec],
    argument: str,
    outputs: Sequence[str] = (),
) -> tuple[Feed, ...]:
    """Assign columns to each spec. A list or dictionary may have columns of other `outputs`."""
    names = [s.name for s in specs]
    if outputs and not isinstance(value, str | Mapping) and len(value) == len(outputs):
        value = dict(zip(outputs, value, strict=True))
    if isinstance(value, Mapping):
        if not set(names) <= set(value) <= {*names, *outputs}:
            raise invalid(argument, f"a dictionary with the keys {names}", value)
        chosen: Sequence[Names] = [value[n] for n in names]
    elif len(specs) == 1:
        chosen = [value]
    elif isinstance(value, str) or len(value) != len(specs):
        rule = f"a list of {len(specs)} columns, or a dictionary, for {names}"
        raise invalid(argument, rule, value)
    else:
        chosen = value
    pairs = zip(specs, chosen, strict=True)
    return tuple(Feed(spec, as_names(names, argument), argument) for spec, names in pairs)


def as_names(value: Names, argument: str) -> tuple[str, ...]:
    """Return one or several column names as a tuple."""
    names = (value,) if isinstance(value, str) else tuple(value)
    if not names or not all(names):
        raise invalid(argument, "one or several names of columns", value)
    return names


def missing(name: str, available: Sequence[str], argument: str | None = None) -> ValueError:
    """Make the error for a column that does not exist, with the argument that names it."""
    which = f", which `{argument}` names" if argument else ""
    return ValueError(f"There is no column {name!r}{which}. The columns are: {list(available)}")
