"""Assign columns to inputs and targets, and convert record batches to chunks, without Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from kspark.adapters.base import CHUNK_BYTES, Columns
from kspark.adapters.column_names import SHOWN_NAMES, Names, as_names
from kspark.adapters.conform import Place, advised, cast, conform, values_of_kind
from kspark.adapters.sparse import row_bytes, to_rows
from kspark.adapters.structure import weight_specs
from kspark.errors import invalid
from kspark.shards import (
    RAW,
    STORABLE,
    TEXT,
    ArraySpec,
    Chunk,
    Features,
    InputSpec,
    SparseRows,
    dense,
)
from kspark.shards.sparse import side_by_side

ReadColumn = Callable[[str, Place, bool], Features]
"""Function of the name of a column, its `Place`, and whether rows may have different shapes, and be
null. Returns the array of the column."""


@dataclass(frozen=True)
class Packing:
    """How Spark makes one column of arrays out of many columns of numbers.

    Attributes:
        kind: String, the type of the numbers in SQL.
        groups: Tuple of tuples of integers: the positions of the columns of one type, of another
            one, and so on. In this order their values stand in the arrays.
    """

    kind: str
    groups: tuple[tuple[int, ...], ...]

    @property
    def positions(self) -> np.ndarray:
        """The positions of the columns in the order of their values."""
        return np.concatenate(self.groups)

    def in_order(self, values: np.ndarray) -> np.ndarray:
        """Return a matrix of arrays with the values in the order of the columns."""
        if len(self.groups) == 1:
            return values
        ordered = np.empty_like(values)
        ordered[:, self.positions] = values
        return ordered


@dataclass(frozen=True)
class Feed:
    """The columns of one input or target. Several columns are concatenated side by side.

    Attributes:
        spec: `ArraySpec` of the input or target.
        names: Tuple of strings, the columns.
        argument: String, the argument that names the columns, for errors.
        packed: `Packing` if Spark makes one column of arrays out of the columns, else `None`.
    """

    spec: ArraySpec
    names: tuple[str, ...]
    argument: str = "features_col"
    packed: Packing | None = None

    @property
    def title(self) -> str:
        """The name of the columns in errors."""
        if len(self.names) == 1:
            return f"Column {self.names[0]!r}"
        if len(self.names) <= SHOWN_NAMES:
            return f"Columns {', '.join(map(repr, self.names))}"
        return f"Columns {self.names[0]!r} to {self.names[-1]!r} ({len(self.names)} columns)"

    @property
    def is_loose(self) -> bool:
        """Whether rows may have different shapes, and be null: those of one column alone."""
        return self.spec.is_loose and len(self.names) == 1

    @property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        """The names that each column of a record batch stands for."""
        return (self.names,) if self.packed else tuple((name,) for name in self.names)

    def array(self, parts: Sequence[Features], floatx: str, place: Place) -> Any:
        """Join the arrays of the columns, in the dtype and shape of the spec.

        Raises:
            ValueError: If they do not fit. It names the column if one column is the reason.
        """
        if len(parts) == 1 and len(self.names) == 1:
            return conform(parts[0], self.spec, floatx, place)
        if not self.packed:
            self.check_kinds(parts, place)
        joined: Any = parts[0] if self.packed else joined_columns(parts)
        try:
            return conform(joined, self.spec, floatx, place)
        except ValueError:
            columns = joined.T if self.packed else parts
            for name, column in zip(self.names, columns, strict=True):
                cast(column, self.spec.dtype, floatx, replace(place, name=f"Column {name!r}"))
            raise

    def unpacked(self, column: pa.Array, packed: Packing, place: Place) -> np.ndarray:
        """Return the matrix of a column of arrays into which Spark packed the columns.

        Raises:
            ValueError: If there is a null. It names the column.
        """
        values = column.flatten()
        if values.null_count:
            at = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            row, number = divmod(at, len(self.names))
            name = f"Column {self.names[packed.positions[number]]!r}"
            raise replace(place, name=name).error("no nulls", "null", row)
        matrix = values.to_numpy(zero_copy_only=False).reshape(len(column), len(self.names))
        return packed.in_order(matrix)

    def check_kinds(self, parts: Sequence[Features], place: Place) -> None:
        """Refuse columns that cannot be joined, because one has text and another one numbers.

        Raises:
            ValueError: If a column is not of the kind that the spec or the first column has.
        """
        kinds = ["text" if p.dtype.kind in "OU" else "numbers" for p in parts]
        wanted = "text" if self.spec.dtype == TEXT else "numbers"
        if is_free := self.spec.dtype in ("", RAW, STORABLE):
            wanted = kinds[0]
        for name, part, kind in zip(self.names, parts, kinds, strict=True):
            column = replace(place, name=f"Column {name!r}")
            if kind != wanted and is_free and self.argument == "features_col":
                shown = ", ".join(f"{name!r}: {name!r}" for name in self.names[:3])
                more = ", ..." if len(self.names) > len(self.names[:3]) else ""
                raise ValueError(
                    f"{column.error(f'{wanted}, as the columns beside it', kind)}. For an input "
                    f"of each, pass a dictionary: `features_col={{{shown}{more}}}`"
                )
            if kind != wanted:
                raise column.error(wanted, kind)
            if part.dtype.kind not in "biufOU":
                error = column.error(wanted, values_of_kind(part.dtype))
                raise advised(error, part.dtype.kind)


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
    def sources(self) -> dict[tuple[str, ...], Packing | None]:
        """The columns of a record batch: the names that each stands for, and `Feed.packed`."""
        feeds = (*self.x, *self.y, *self.sample_weight)
        return {source: feed.packed for feed in feeds for source in feed.sources}

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
        """Yield chunks of a record batch whose columns are those of `sources`, in their order.

        Raises:
            ValueError: If the rows do not fit the spec.
        """
        kept_dense = {name for feed in (*self.y, *self.sample_weight) for name in feed.names}
        # Sparse rows among nulls become dense; see `to_rows`.
        kept_dense |= {
            source[0]
            for source, column in zip(self.sources, batch.columns, strict=True)
            if column.null_count
        }
        pairs = zip(self.sources, batch.columns, strict=True)
        nbytes = sum(row_bytes(column, dense=source[0] in kept_dense) for source, column in pairs)
        size = max(1, CHUNK_BYTES // max(1, nbytes))
        sources = list(self.sources)
        for start in range(0, batch.num_rows, size):
            rows = batch.slice(start, size)
            columns = dict(zip(sources, rows.columns, strict=True))
            yield self.chunk(columns, partition, first_row + start)

    def chunk(
        self, columns: Mapping[tuple[str, ...], pa.Array], partition: int | None, first_row: int
    ) -> Chunk:
        """Make a chunk of some rows."""

        def packed(feed: Feed, packing: Packing, place: Place) -> np.ndarray:
            return feed.unpacked(columns[feed.names], packing, place)

        def read(name: str, place: Place, is_loose: bool) -> Features:
            return to_rows(columns[name,], place, is_loose=is_loose)

        return self.assembled(read, partition, first_row, packed)

    def assembled(
        self,
        read: ReadColumn,
        partition: int | None,
        first_row: int,
        packed: Callable[[Feed, Packing, Place], np.ndarray] | None = None,
    ) -> Chunk:
        """Make a chunk of the arrays of some rows.

        Args:
            read: `ReadColumn`.
            partition: Integer, or `None` on the driver.
            first_row: Integer, index of the first row in the partition.
            packed: Function that returns the matrix of a feed that is packed. Defaults to `None`:
                no feed is.
        """

        def array(feed: Feed) -> Any:
            place = Place(feed.title, partition, first_row)
            if feed.packed and packed is not None:
                parts: list[Features] = [packed(feed, feed.packed, place)]
            else:
                parts = [
                    read(name, Place(f"Column {name!r}", partition, first_row), feed.is_loose)
                    for name in feed.names
                ]
            return feed.array(parts, self.floatx, place)

        return Chunk(
            [array(f) for f in self.x],
            [dense(array(f)) for f in self.y],
            [dense(array(f)) for f in self.sample_weight],
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
    if not isinstance(value, Iterable):
        raise invalid(argument, "one or several names of columns", value)
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


def joined_columns(parts: Sequence[Features]) -> Features:
    """Join arrays of the same rows to a matrix, which is sparse if one of them is."""
    flat: Any = [part.reshape(len(part), prod(part.shape[1:])) for part in parts]
    if any(isinstance(part, SparseRows) for part in parts):
        return side_by_side(flat)
    return np.concatenate(flat, axis=1)
