"""Rows that were spooled before a model was known, and what a model takes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from kspark.adapters.base import CHUNK_BYTES, Columns, Examples
from kspark.adapters.column_names import is_other
from kspark.adapters.conform import Place, conform
from kspark.adapters.layout import Group, Layout
from kspark.adapters.refusals import shown
from kspark.adapters.structure import leaves, part_name
from kspark.adapters.tensors import decoded
from kspark.errors import Described, invalid
from kspark.shards import (
    RAGGED,
    RAW,
    STORABLE,
    TEXT,
    ArraySpec,
    Chunk,
    Features,
    InputSpec,
    Shard,
    ShardHandle,
    SparseRows,
    StoredArray,
    dense,
)

FREE = ("", RAW, STORABLE, TEXT)
"""The dtypes of arrays whose numbers are not cast to another type."""


@dataclass(frozen=True)
class Pick:
    """An array of spooled rows that a model takes.

    Attributes:
        position: Integer, its position in its group.
        spec: `ArraySpec` of the model.
        name: String, its name in errors.
    """

    position: int
    spec: ArraySpec
    name: str

    def array(self, values: Features, floatx: str, partition: int, first: int) -> Any:
        """Return the values of some rows as the model takes them.

        Raises:
            ValueError: If the model does not take them.
        """
        place = Place(self.name, partition, first)
        if self.spec.dtype == TEXT and values.dtype == object:
            values = decoded(np.asarray(values), place)  # TFRecord files hold text as bytes
        check_exact(values, self.spec, place)
        return conform(values, self.spec, floatx, place)

    def described(self, stored: StoredArray, floatx: str, partition: int) -> StoredArray:
        """Return dtype and shape of an array as the model takes it. Reads no rows.

        Raises:
            ValueError: If the model does not take arrays of its kind or shape.
        """
        if stored.dtype == RAGGED:
            self.check_loose(partition)
            return stored
        kind = object if stored.is_text else np.dtype(stored.dtype)
        empty = np.empty((0, *stored.shape), kind)
        place = Place(self.name, partition)
        found = conform(empty, self.spec, floatx, place)
        if empty.dtype.kind == found.dtype.kind == "f" and found.itemsize > empty.itemsize:
            rule = f"{found.dtype} numbers"
            advice = "call `keras.config.set_floatx` with this type before `kspark.data.spool`"
            raise place.error(rule, f"rows that were spooled as {empty.dtype}; {advice}")
        dtype = stored.dtype if found.dtype == object else found.dtype.name
        if self.spec.dtype == TEXT:
            dtype = TEXT
        return replace(stored, dtype=dtype, shape=found.shape[1:])

    def check_loose(self, partition: int) -> None:
        """Refuse rows of different shapes, or nulls, for a model that takes arrays.

        Raises:
            ValueError: If the array is not for `preprocess`.
        """
        if not self.spec.is_loose:
            rule = (
                "rows of one shape, without nulls; make them with `preprocess`, for example with "
                '`lambda batch: keras.utils.pad_sequences(batch["x"], 100)`'
            )
            raise Place(self.name, partition).error(rule, "rows of different shapes, or nulls")


def check_exact(values: Features, spec: ArraySpec, place: Place) -> None:
    """Refuse whole numbers that were rounded when they were spooled as floating point numbers.

    Raises:
        ValueError: If there may be one.
    """
    if values.dtype.kind != "f" or values.dtype.itemsize >= 8 or spec.dtype in FREE:
        return
    if np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype).kind == "f":
        return
    limit = 2 ** (np.finfo(values.dtype).nmant + 1)
    numbers = values.data if isinstance(values, SparseRows) else values
    if (np.abs(numbers) > limit).any():
        values = dense(values)
        large = np.abs(values) > limit
        row, *_ = np.argwhere(large)[0]
        rule = f"whole numbers up to {limit} in rows spooled as {values.dtype}; spool integers"
        raise place.error(rule, values[large][0], int(row))


@dataclass(frozen=True)
class StoredPlan:
    """What a model takes of spooled rows.

    Attributes:
        x: Tuple of `Pick`, one per input.
        y: Tuple of `Pick`, one per target; empty without labels.
        sample_weight: Tuple of `Pick`.
        floatx: String, see `InputSpec`.
    """

    x: tuple[Pick, ...]
    y: tuple[Pick, ...]
    sample_weight: tuple[Pick, ...]
    floatx: str

    @property
    def is_loose(self) -> bool:
        """Whether features may have different shapes."""
        return any(pick.spec.is_loose for pick in self.x)

    @classmethod
    def of(cls, layout: Layout, spec: InputSpec) -> StoredPlan:
        """Assign the arrays of spooled rows to the inputs and targets of a model.

        Raises:
            ValueError: If there is another number of arrays, or if there are no labels.
        """
        if spec.targets and not layout.y.names:
            rule = (
                f"spooled rows with labels for the outputs {[t.name for t in spec.targets]}; give "
                "`kspark.data.spool` the labels, as `y` or with `label_col`"
            )
            raise invalid("x", rule, Described("rows without labels"))
        x = picks(layout.x, spec.inputs, "x")
        if not spec.targets:  # as for a prediction
            return cls(x, (), (), spec.floatx)
        weights = layout.sample_weight
        specs: Sequence[ArraySpec] = ()
        if weights.names:
            many = weights.structure != "single"
            names = [target.name for target in spec.targets] if many else ["sample_weight"]
            specs = [ArraySpec(name, None, spec.floatx) for name in names]
        return cls(
            x,
            picks(layout.y, spec.targets, "y", spec.outputs),
            picks(weights, specs, "sample_weight", spec.outputs if len(specs) > 1 else ()),
            spec.floatx,
        )

    def described(self, handle: ShardHandle) -> ShardHandle:
        """Return a handle with the arrays that the model takes, as it takes them. Reads no rows.

        Raises:
            ValueError: If the model does not take arrays of their kind or shape.
        """
        if not handle.num_examples:
            return handle

        def group(picked: tuple[Pick, ...], arrays: Sequence[StoredArray]) -> Any:
            return tuple(p.described(arrays[p.position], self.floatx, handle.index) for p in picked)

        return replace(
            handle,
            x=group(self.x, handle.x),
            y=group(self.y, handle.y),
            sample_weight=group(self.sample_weight, handle.sample_weight),
            stats=tuple(handle.stats[p.position] for p in self.y),
        )

    def keeps_values(self, handle: ShardHandle) -> bool:
        """Whether the model takes the values of a shard in the types in which they are on disk."""
        groups = (
            (self.x, handle.x),
            (self.y, handle.y),
            (self.sample_weight, handle.sample_weight),
        )
        return all(
            arrays[p.position].dtype == p.described(arrays[p.position], self.floatx, 0).dtype
            for picked, arrays in groups
            for p in picked
        )

    def chunks(self, shard: Shard, stop: int) -> Iterator[Chunk]:
        """Yield the first rows of a shard, in their order, as the model takes them.

        Raises:
            ValueError: If the model does not take their values.
            SpoolMissingError: If files are missing.
        """
        first = 0
        for window in shard.windows(1, stop=stop, window_bytes=CHUNK_BYTES):
            yield Chunk(
                self._arrays(self.x, window.x, shard.index, first),
                self._arrays(self.y, window.y, shard.index, first),
                self._arrays(self.sample_weight, window.sample_weight, shard.index, first),
            )
            first += window.num_examples

    def _arrays(
        self, picked: tuple[Pick, ...], arrays: Sequence[Features], partition: int, first: int
    ) -> list[Any]:
        return [p.array(arrays[p.position], self.floatx, partition, first) for p in picked]


def picks(
    group: Group, specs: Sequence[ArraySpec], name: str, outputs: Sequence[str] = ()
) -> tuple[Pick, ...]:
    """Assign the arrays of a group to specs.

    Raises:
        ValueError: If they do not match.
    """
    if not group.names:
        return ()
    names = [spec.name for spec in specs]
    try:
        if group.structure == "list" and len(specs) == 1 and not outputs:
            raise ValueError
        found = leaves(group.positions, specs, name, outputs)
    except ValueError:
        parts = "one array" if len(names) == 1 else f"{len(names)} arrays"
        rule = f"spooled rows with {parts}, for {names}, as the model takes them"
        raise invalid(name, rule, Described(str(group))) from None
    return tuple(
        Pick(int(position[0]), spec, part_name(name, specs, i))
        for i, (position, spec) in enumerate(zip(found, specs, strict=True))
    )


class Spooled(ABC):
    """Rows that were spooled once. They become examples for one model after the other."""

    @abstractmethod
    def check_open(self) -> None:
        """Check that the rows can be used.

        Raises:
            ValueError: If their files were deleted.
            ClusterError: If their session was stopped.
        """

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns of a table that became one array, the features; empty for other data."""

    @abstractmethod
    def example(self) -> Any:
        """Return features of the shape and type of the first row, in their structure.

        Their values are invented, as a model that is not built needs no more than their shapes.
        """

    @abstractmethod
    def first_row(self) -> Any:
        """Return the features of the first row, in their structure. Runs a small job."""

    @abstractmethod
    def examples(self, spec: InputSpec) -> Examples:
        """Return the rows as `Examples` for a model.

        Raises:
            ValueError: If the model does not take them.
        """


def adapt_spooled(
    spark: SparkSession, x: Spooled, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> Examples:
    """Make examples from rows that were spooled before.

    Raises:
        ValueError: If the model does not take them, or if other arguments name labels, weights or
            columns, which were named when the rows were spooled.
    """
    given: Mapping[str, tuple[Any, bool]] = {
        "y": (Described(shown(y)), y is not None),
        "sample_weight": (Described(shown(sample_weight)), sample_weight is not None),
        "features_col": (columns.features_col, is_other(columns.features_col, "features")),
        "label_col": (columns.label_col, is_other(columns.label_col, "label")),
        "weight_col": (columns.weight_col, columns.weight_col is not None),
    }
    for name, (value, is_set) in given.items():
        if is_set:
            rule = "left out for spooled rows; give it to `kspark.data.spool`"
            raise invalid(name, rule, value)
    return x.examples(spec)
