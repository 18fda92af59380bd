"""Columns of a DataFrame by name, also thousands of them.

PySpark makes the list of a DataFrame's columns anew each time, and asks the JVM several times for
each expression. So `FrameColumns` reads the columns once, and many columns of numbers become one
column of arrays by a single expression: it also takes Spark half of the time to send one column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DecimalType

from kspark.adapters.column_names import missing
from kspark.adapters.feeds import Feed, FramePlan, Packing

MANY = 100
"""From how many columns of numbers on they become one column of arrays. Spark itself leaves out
some optimizations of queries from this number on (`spark.sql.codegen.maxFields`)."""

NUMBERS = {
    "boolean": "bool",
    "tinyint": "int8",
    "smallint": "int16",
    "int": "int32",
    "bigint": "int64",
    "float": "float32",
    "double": "float64",
}
"""Spark's types of numbers, as SQL names them, and NumPy's."""

SPARK_TYPES = {dtype: name for name, dtype in NUMBERS.items()}


class FrameColumns:
    """The columns of a DataFrame by name.

    Args:
        frame: DataFrame.

    Attributes:
        types: Dictionary from the name of each column to its `DataType`.
        names: List of strings, the names in their order.
    """

    def __init__(self, frame: DataFrame) -> None:
        fields = frame.schema.fields
        self.types: dict[str, DataType] = {field.name: field.dataType for field in fields}
        self.names = [field.name for field in fields]
        self._frame = frame

    @cached_property
    def _by_lower_case(self) -> dict[str, str]:
        conf = self._frame.sparkSession.conf
        if str(conf.get("spark.sql.caseSensitive", "false")).lower() == "true":
            return {}
        return {name.lower(): name for name in reversed(self.names)}

    def own_name(self, name: str) -> str | None:
        """Return the name of a column as the DataFrame spells it, or `None` if there is none.

        Case is ignored, unless `spark.sql.caseSensitive` is true.
        """
        return name if name in self.types else self._by_lower_case.get(name.lower())

    def reference(self, name: str, argument: str | None = None) -> str:
        """Return the name of a column, or of a field "struct.field", in SQL.

        Args:
            name: String, the name.
            argument: String, the argument that names the column, for the error. Defaults to
                `None`.

        Raises:
            ValueError: If there is no such column.
        """
        own = self.own_name(name)
        if own is not None:
            return quoted(own)
        head = name.partition(".")[0]
        if head == name or self.own_name(head) is None:
            raise missing(name, self.names, argument)
        return name if "`" in name else ".".join(map(quoted, name.split(".")))

    def column(self, name: str, argument: str | None = None) -> Column:
        """Return a column by its name; see `reference`.

        Raises:
            ValueError: If there is no such column.
        """
        return F.col(self.reference(name, argument))

    def types_of(self, arguments: Mapping[str, str]) -> dict[str, DataType]:
        """Return the types of columns and fields.

        Args:
            arguments: Mapping from each name to the argument that names it, for errors.

        Raises:
            ValueError: If there is no such column.
        """
        references = {name: self.reference(name, arguments[name]) for name in arguments}
        nested = [name for name in references if self.own_name(name) is None]
        chosen = [F.col(references[name]) for name in nested]
        fields = self._frame.select(chosen).schema.fields if chosen else []
        found = {name: field.dataType for name, field in zip(nested, fields, strict=True)}
        for name in references:
            own = self.own_name(name)
            if own is not None:
                found[name] = self.types[own]
        return found

    def sources(self, plan: FramePlan) -> list[Column]:
        """Return the columns that a plan reads, `plan.sources`, in their order."""
        return [self._source(names, packed) for names, packed in plan.sources.items()]

    def _source(self, names: tuple[str, ...], packed: Packing | None) -> Column:
        if packed is None:
            return self.column(names[0])
        # As one text: each call of a function of PySpark asks the JVM several times. Arrays are
        # cast, and not columns, as Spark compiles code for each expression.
        groups = (
            f"array({', '.join(self.reference(names[at]) for at in group)})"
            for group in packed.groups
        )
        joined = "double" if packed.kind == "float" else packed.kind  # as NumPy joins them
        if len(packed.groups) > 1:
            groups = (f"cast({group} as array<{joined}>)" for group in groups)
        return F.expr(f"cast(concat({', '.join(groups)}) as array<{packed.kind}>)")


def quoted(name: str) -> str:
    """Return the name of a column or field in SQL, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def packed_plan(plan: FramePlan, types: Mapping[str, DataType]) -> FramePlan:
    """Return a plan in which Spark makes one column of arrays out of `MANY` columns of numbers.

    Args:
        plan: `FramePlan`.
        types: Mapping from the name of each column to its type.
    """

    def packed(feeds: Iterable[Feed]) -> tuple[Feed, ...]:
        return tuple(replace(feed, packed=packing_of(feed, types)) for feed in feeds)

    return replace(
        plan, x=packed(plan.x), y=packed(plan.y), sample_weight=packed(plan.sample_weight)
    )


def packing_of(feed: Feed, types: Mapping[str, DataType]) -> Packing | None:
    """Return how Spark makes one column out of the columns of a feed, or `None` if it does not.

    The numbers have the type that NumPy gives to the columns side by side, or float if the model
    takes that.
    """
    if len(feed.names) < MANY:
        return None
    groups: dict[str, list[int]] = {}
    for at, name in enumerate(feed.names):
        groups.setdefault(types[name].simpleString(), []).append(at)
    kinds = {number_type(types[feed.names[group[0]]]) for group in groups.values()}
    if None in kinds:
        return None
    joined = np.result_type(*(kind for kind in kinds if kind is not None))
    narrow = feed.spec.dtype == "float32" and joined.itemsize > 4
    kind = "float" if narrow else SPARK_TYPES[joined.name]
    return Packing(kind, tuple(map(tuple, groups.values())))


def number_type(kind: DataType) -> str | None:
    """Return NumPy's dtype of a column of single numbers or booleans, else `None`."""
    if isinstance(kind, DecimalType):
        return "float64"
    return NUMBERS.get(kind.simpleString())
