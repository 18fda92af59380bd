"""Filters as lists of tuples or as an expression: the columns and the row groups that they need."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kspark.errors import Described, invalid, nearest, shortened
from kspark.files.filter_values import is_nan, typed_value
from kspark.files.footers import READERS, RowGroup
from kspark.files.listing import DataFile

Condition = tuple[str, str, Any]

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
MEMBERSHIP = ("in", "not in")

SHOWN_NAMES = 20
"""The most names of columns that an error lists."""

RULE = (
    "None, a list of tuples such as `('age', '>', 17)` or `('age', 'in', [17, 18])`, a list of "
    "such lists, of which a row must fulfil one, or an expression of pyarrow.compute"
)


def conditions_of(filters: Any) -> list[list[Condition]]:
    """Return lists of conditions, of which a row must fulfil all of one list.

    Raises:
        ValueError: If the filters are not lists of tuples.
    """
    if not isinstance(filters, list | tuple) or not filters:
        raise invalid("filters", RULE, filters)
    groups = [filters] if all(map(is_condition, filters)) else filters
    for group in groups:
        if not isinstance(group, list | tuple) or not group or not all(map(is_condition, group)):
            raise invalid("filters", RULE, filters)
        for name, sign, value in group:
            check_operator(name, sign, value)
    return [[(name, sign, value) for name, sign, value in group] for group in groups]


def is_condition(value: Any) -> bool:
    """Whether a value has the form of a condition on one column."""
    is_triple = isinstance(value, list | tuple) and len(value) == 3
    return is_triple and isinstance(value[0], str) and isinstance(value[1], str)


def check_operator(name: str, sign: str, value: Any) -> None:
    """Check that an operator exists and takes a value.

    Raises:
        ValueError: If not.
    """
    if sign not in (*COMPARISONS, *MEMBERSHIP):
        known = ", ".join(map(repr, (*COMPARISONS, *MEMBERSHIP)))
        rule = f"conditions with one of the operators {known}"
        raise invalid("filters", rule, shown((name, sign, value)))
    if sign in MEMBERSHIP and not isinstance(value, list | tuple | set | frozenset | np.ndarray):
        rule = f"conditions with a list of values for {sign!r}, such as {shortened(repr([value]))}"
        raise invalid("filters", rule, shown((name, sign, value)))


def shown(condition: Condition) -> Described:
    """Return a condition as errors show it: cut, as it may have very many values."""
    return Described(shortened(repr(condition)))


def check_filters(filters: Any) -> None:
    """Check the form of filters, before files are looked for.

    Raises:
        ValueError: If they are neither `None`, nor lists of tuples, nor an expression.
    """
    if filters is not None and not isinstance(filters, pc.Expression):
        conditions_of(filters)


def expression_of(
    filters: Any,
    schema: pa.Schema,
    own_name: Callable[[str], str | None],
    zone: str,
    advice: Callable[[str], str] = lambda name: "",
) -> pc.Expression:
    """Return filters as an expression, by which Spark's rows remain.

    Args:
        filters: Filters, not `None`.
        schema: `pa.Schema` of all columns.
        own_name: Function that returns the name of a column as `schema` spells it, or `None`.
        zone: String, time zone of times that have none.
        advice: Function that returns what to do about the name of a column that does not exist.
            Defaults to one that knows nothing.

    Raises:
        ValueError: If there is no such column, or its type does not go with the value.
    """
    if isinstance(filters, pc.Expression):
        return filters

    def condition(name: str, sign: str, value: Any) -> pc.Expression:
        own = own_name(name)
        if own is None:
            found = f"a condition on {name!r}. {advice(name) or suggestion(name, schema.names)}"
            raise invalid("filters", "conditions on columns that exist", Described(found))
        try:
            found = compared(pc.field(own), schema.field(own).type, sign, value, zone)
            pa.schema([schema.field(own)]).empty_table().filter(found)  # tries it
            return found
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise unfit(schema.field(own), (name, sign, value), error) from error

    groups = conditions_of(filters)
    every = (reduce(operator.and_, (condition(*one) for one in group)) for group in groups)
    return reduce(operator.or_, every)


def compared(
    field: pc.Expression, kind: pa.DataType, sign: str, value: Any, zone: str
) -> pc.Expression:
    """Return one condition. As for Spark, NaN equals itself and is larger than all numbers."""
    if sign in MEMBERSHIP:
        values = [typed_value(one, kind, zone) for one in value]
        return member(field, kind, values) if sign == "in" else no_member(field, kind, values)
    value, never = typed_value(value, kind, zone), field.is_null() & field.is_valid()
    found = COMPARISONS[sign](field, value)
    if not pa.types.is_floating(kind):
        return found
    if not is_nan(value):
        return found | pc.is_nan(field) if sign in (">", ">=") else found
    if sign in ("=", "==", ">="):
        return pc.is_nan(field)
    return {"<=": field.is_valid(), ">": never}.get(sign, ~pc.is_nan(field))


def member(field: pc.Expression, kind: pa.DataType, values: Sequence[Any]) -> pc.Expression:
    """Return the condition that a value is one of some; as for Spark, null is none of them."""
    found = field.is_null() & field.is_valid()  # Never true, but has the column.
    if known := [value for value in values if value is not None and not is_nan(value)]:
        equal = (field == value for value in known)  # `isin` does not convert times.
        found = reduce(operator.or_, equal) if pa.types.is_timestamp(kind) else field.isin(known)
    with_nan = pa.types.is_floating(kind) and any(map(is_nan, values))
    return found | pc.is_nan(field) if with_nan else found


def no_member(field: pc.Expression, kind: pa.DataType, values: Sequence[Any]) -> pc.Expression:
    """Return the condition that a value is none of some. It is unknown if one of them is null."""
    if any(value is None for value in values):
        return field.is_null() & field.is_valid()
    return ~member(field, kind, values) & field.is_valid()


def columns_of(expression: pc.Expression, schema: pa.Schema) -> list[str]:
    """Return the columns that an expression reads.

    An expression does not tell its columns, but it fails on a table that lacks one of them.

    Raises:
        ValueError: If the expression does not go with the types of the columns.
    """
    empty = schema.empty_table()
    try:
        empty.filter(expression)
    except pa.ArrowException as error:
        kinds = {field.name: str(field.type) for field in schema}
        rule = f"conditions on columns of the types {kinds} ({error})"
        raise invalid("filters", rule, expression) from error
    return [name for name in schema.names if not works(expression, empty.drop_columns([name]))]


def unfit(field: pa.Field, condition: Condition, error: Exception) -> ValueError:
    """Return the error for a condition that does not go with the type of its column."""
    rule = f"conditions that go with their columns; {field.name!r} has the type {field.type}"
    return invalid("filters", rule, Described(f"{shown(condition)} ({shortened(str(error))})"))


def suggestion(name: str, names: Sequence[str]) -> str:
    """Return the column with the most similar name, and the first columns."""
    meant, first = nearest(name, names), list(names[:SHOWN_NAMES])
    start = "" if meant is None else f"Did you mean {meant!r}? "
    verb = "are" if len(names) <= SHOWN_NAMES else "begin with"
    return f"{start}The columns {verb}: {first}"


def works(expression: pc.Expression, table: pa.Table) -> bool:
    """Whether a table has all columns of an expression."""
    try:
        table.filter(expression)
    except pa.ArrowException:
        return False
    return True


def remaining(
    expression: pc.Expression,
    schema: pa.Schema,
    partitions: Sequence[pa.Field],
    files: Sequence[DataFile],
    groups: Sequence[RowGroup],
) -> list[RowGroup]:
    """Return the row groups that can have rows for an expression, by their statistics.

    Args:
        expression: `pc.Expression`.
        schema: `pa.Schema` of all columns.
        partitions: Sequence of `pa.Field`, the partition columns.
        files: Sequence of `DataFile`.
        groups: Sequence of `RowGroup`.
    """
    import pyarrow.dataset as ds  # Takes time to import, which workers need not spend.

    def kept(file: DataFile) -> set[int] | None:
        """Return the numbers of row groups; `None` if their statistics do not tell."""
        fragment = ds.ParquetFileFormat(coerce_int96_timestamp_unit="us").make_fragment(
            file.place.path, file.place.system, known(file.values, partitions)
        )
        try:
            part = fragment.subset(filter=expression, schema=schema)
            return {group.id for group in part.row_groups}
        except pa.ArrowException:  # The file has another type of Arrow, such as a view.
            return None

    with ThreadPoolExecutor(min(READERS, len(files))) as pool:
        found = list(pool.map(kept, files))

    def remains(group: RowGroup) -> bool:
        numbers = found[group.file]
        return numbers is None or group.number in numbers

    return [group for group in groups if remains(group)]


def known(values: Mapping[str, Any], partitions: Sequence[pa.Field]) -> pc.Expression:
    """Return what is known of all rows of a file: the values of its partition columns."""
    return reduce(
        operator.and_,
        (
            pc.field(field.name).is_null()
            if values[field.name] is None
            else pc.field(field.name) == pa.scalar(values[field.name], field.type)
            for field in partitions
        ),
        pc.scalar(True),
    )
