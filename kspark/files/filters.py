"""Filters in pyarrow's form: the columns and the row groups that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kspark.errors import invalid
from kspark.files.footers import READERS, RowGroup
from kspark.files.listing import DataFile

RULE = (
    "None, a list of tuples such as `('age', '>', 17)`, a list of such lists, of which a row must "
    "fulfil one, or an expression of pyarrow.compute"
)


def expression_of(filters: Any) -> pc.Expression | None:
    """Return filters as an expression; `None` for no filters.

    Raises:
        ValueError: If they are not in pyarrow's form.
    """
    if filters is None or isinstance(filters, pc.Expression):
        return filters
    try:
        return pq.filters_to_expression(filters)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise invalid("filters", RULE, filters) from error


def with_dates(filters: Any, schema: pa.Schema) -> Any:
    """Return filters in which texts are dates if their column has dates, as Spark casts them.

    Args:
        filters: Filters in pyarrow's form.
        schema: `pa.Schema` of all columns.

    Raises:
        ValueError: If a text is not a date.
    """
    if not isinstance(filters, list | tuple):
        return filters
    if not isinstance(filters, tuple) or not isinstance(filters[0], str):
        return [with_dates(part, schema) for part in filters]
    name, operator, value = filters
    at = schema.get_field_index(name)
    if at < 0 or not pa.types.is_date(schema.field(at).type):
        return filters
    if isinstance(value, str):
        return name, operator, as_date(value)
    many = isinstance(value, list | tuple | set)
    return name, operator, [as_date(one) for one in value] if many else value


def as_date(value: Any) -> Any:
    """Return a text as a date, and other values as they are.

    Raises:
        ValueError: If the text is not a date.
    """
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise invalid(
            "filters", "dates such as '2024-12-31' for a column of dates", value
        ) from error


def columns_of(expression: pc.Expression, schema: pa.Schema) -> list[str]:
    """Return the columns that an expression reads.

    An expression does not tell its columns, but it fails on a table that lacks one of them.

    Raises:
        ValueError: If the expression does not go with the types of the columns.
    """
    empty = schema.empty_table()
    try:
        empty.filter(expression)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        rule = f"conditions on the columns {schema.names}, with values of their types"
        raise invalid("filters", f"{rule} ({error})", expression) from error
    return [name for name in schema.names if not works(expression, empty.drop_columns([name]))]


def works(expression: pc.Expression, table: pa.Table) -> bool:
    """Whether a table has all columns of an expression."""
    try:
        table.filter(expression)
    except pa.ArrowInvalid:
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

    def kept(number: int) -> set[tuple[int, int]]:
        file = files[number]
        fragment = ds.ParquetFileFormat(coerce_int96_timestamp_unit="us").make_fragment(
            file.place.path, file.place.system, known(file.values, partitions)
        )
        part = fragment.subset(filter=expression, schema=schema)
        return {(number, group.id) for group in part.row_groups}

    with ThreadPoolExecutor(min(READERS, len(files))) as pool:
        found = set().union(*pool.map(kept, range(len(files))))
    return [group for group in groups if (group.file, group.number) in found]


def known(values: Mapping[str, Any], partitions: Sequence[pa.Field]) -> pc.Expression:
    """Return what is known of all rows of a file: the values of its partition columns."""
    return reduce(
        and_,
        (
            pc.field(field.name).is_null()
            if values[field.name] is None
            else pc.field(field.name) == pa.scalar(values[field.name], field.type)
            for field in partitions
        ),
        pc.scalar(True),
    )
