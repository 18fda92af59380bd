"""`ParquetFiles`: files as one table, described by their footers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kspark.errors import invalid
from kspark.files.filters import check_filters, columns_of, expression_of, remaining
from kspark.files.footers import RowGroup, read_footers
from kspark.files.listing import DataFile, list_files
from kspark.files.partitions import typed_files
from kspark.files.reading import Column, Selection
from kspark.files.splits import Piece, divide, first_rows
from kspark.files.types import Description, plain_type, spark_fields, spark_type


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files as one table.

    Attributes:
        files: Tuple of `DataFile`.
        groups: Tuple of `RowGroup`, those of all files that can have rows for the filter.
        schemas: Tuple of pairs of a `pa.Schema` and the first `DataFile` that has it. The first
            one decides the columns, as for Spark.
        partitions: Tuple of `pa.Field`, the partition columns.
        filter: `pc.Expression`, which rows to use; `None` for all.
        ignore_case: Boolean, whether `Age` names the column `age`, as for Spark.
    """

    files: tuple[DataFile, ...]
    groups: tuple[RowGroup, ...]
    schemas: tuple[tuple[pa.Schema, DataFile], ...]
    partitions: tuple[pa.Field, ...] = ()
    filter: pc.Expression | None = None
    ignore_case: bool = True

    @classmethod
    def open(
        cls,
        paths: Sequence[str],
        filters: Any = None,
        *,
        ignore_case: bool = True,
        infer: bool = True,
        zone: str = "UTC",
    ) -> ParquetFiles:
        """Find files, and read their footers.

        Args:
            paths: Sequence of strings: files, folders or patterns.
            filters: Which rows to use, see `kspark.files.filters`. Defaults to `None`, all.
            ignore_case: Boolean, see the attribute. Defaults to `True`.
            infer: Boolean, see `kspark.files.partitions.typed_files`. Defaults to `True`.
            zone: String, see there. Defaults to `"UTC"`.

        Raises:
            FileNotFoundError: If there are no files.
            ValueError: If a file is not a Parquet file, or `filters` are not usable.
            UnreachableError: If a file system is unknown.
            OSError: If a file cannot be read.
        """
        check_filters(filters)
        files, partitions = typed_files(list_files(paths), infer=infer, zone=zone)
        footers = read_footers(files)
        files = [replace(f, rows=r.rows) for f, r in zip(files, footers, strict=True)]
        schemas: list[tuple[pa.Schema, DataFile]] = []
        for file, footer in zip(files, footers, strict=True):
            if not any(footer.schema.equals(known, check_metadata=True) for known, _ in schemas):
                schemas.append((footer.schema, file))
        groups = tuple(group for footer in footers for group in footer.groups)
        fields = tuple(partitions)
        made = cls(tuple(files), groups, tuple(schemas), fields, ignore_case=ignore_case)
        if filters is None:
            return made
        return made._pruned(expression_of(filters, made.schema, made.own_name, zone, made.advice))

    def _pruned(self, expression: pc.Expression) -> ParquetFiles:
        names = columns_of(expression, self.schema)
        for name in names:
            self.check_column(name)
        schema = pa.schema([self.schema.field(name) for name in names])
        groups = remaining(expression, schema, self.partitions, self.files, self.groups)
        return replace(self, groups=tuple(groups), filter=expression)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns: those of the first file, then the partition columns.

        A column that other files have in other types of Arrow has the plain one for all files.
        """
        own = {field.name: self._unified(field) for field in self.schemas[0][0]}
        own.update({field.name: field for field in self.partitions})
        return pa.schema(list(own.values()))

    def _unified(self, field: pa.Field) -> pa.Field:
        places = ((schema, schema.get_field_index(field.name)) for schema, _ in self.schemas)
        kinds = {schema.field(at).type for schema, at in places if at >= 0}
        return field if kinds <= {field.type} else field.with_type(plain_type(field.type))

    @cached_property
    def _own_names(self) -> dict[str, list[str]]:
        """The columns as the files spell them, by their names in lower case."""
        found: dict[str, list[str]] = {}
        for name in self.schema.names:
            found.setdefault(name.lower(), []).append(name)
        return found

    @cached_property
    def _descriptions(self) -> list[tuple[Description, DataFile]]:
        return [(Description.of(schema), file) for schema, file in self.schemas]

    @property
    def num_rows(self) -> int:
        """Number of rows; with a filter, the most that there can be."""
        return sum(group.rows for group in self.groups)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns before compression."""
        return sum(group.nbytes for group in self.groups)

    @property
    def fields(self) -> dict[str, dict[str, Any]]:
        """Spark's JSON of each column by name."""
        return spark_fields(self.schemas[0][0]) | spark_fields(pa.schema(self.partitions))

    def first(self, count: int) -> ParquetFiles:
        """Return the first rows; all, if there are not more.

        Raises:
            ValueError: If there is a filter, which hides how many rows of a file come first.
        """
        if self.filter is not None:
            raise invalid("filters", "None if only the first batches are used", self.filter)
        return replace(self, groups=tuple(first_rows(self.groups, count)))

    def split(self, count: int) -> list[tuple[Piece, ...]]:
        """Divide the rows among shards; see `divide`."""
        return divide(self.files, self.groups, count)

    def own_name(self, name: str) -> str | None:
        """Return the name of a column as the files spell it, or `None` if there is none.

        Raises:
            ValueError: If several columns have the name, in different spellings.
        """
        found = self._own_names.get(name.lower(), [])
        if not self.ignore_case:
            return name if name in found else None
        if len(found) > 1:
            raise ValueError(
                f"The columns of files and folders must differ in more than upper case. Received: "
                f"{found}. Set `spark.sql.caseSensitive` to true to tell them apart"
            )
        return found[0] if found else None

    def advice(self, name: str) -> str:
        """Return how a column is found that only the names of folders have, or an empty string."""
        folders = {part for file in self.files for part in file.place.path.split("/")[:-1]}
        if not any(part.lower().startswith(f"{name.lower()}=") for part in folders):
            return ""
        return f"To read it, name the folder that contains the folders `{name}=...`, and no pattern"

    def column(self, name: str) -> Column | None:
        """Return a column, or a field "struct.field" of one; `None` if there is none.

        Raises:
            ValueError: If Spark would read the column differently, or a file lacks it.
        """
        own = self.own_name(name)
        if own is not None:
            self.check_column(own)
            return Column(own, self.schema.field(own).type)
        head, *parts = name.split(".")
        own = self.own_name(head)
        if own is None or not parts:
            return None
        self.check_column(own)
        kind = self.schema.field(own).type
        for part in parts:
            if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
                return None
            kind = kind.field(kind.get_field_index(part)).type
        return Column(own, kind, tuple(parts))

    def check_column(self, name: str) -> None:
        """Check that all files have a column in one type, which Spark reads as pyarrow does.

        Raises:
            ValueError: If not.
        """
        if any(field.name == name for field in self.partitions):
            return
        wanted = spark_type(self.schema.field(name).type)
        for described, file in self._descriptions:
            schema, where = described.schema, f"the file {file.place.shown!r}"
            if schema.get_field_index(name) < 0:
                raise ValueError(
                    f"All files must have the column {name!r}. Received: {where} with the columns "
                    f"{schema.names}"
                )
            if found := described.reason_to_refuse(name):
                raise ValueError(
                    f"Column {name!r} must hold values that Spark and pyarrow read alike. "
                    f"Received: {found[0]}, in {where}. Leave the column out, as `columns=[...]` "
                    f"does for an `output`, or {found[1]}"
                )
            if spark_type(schema.field(name).type) != wanted:
                raise ValueError(
                    f"Column {name!r} must have one type in all files. Received: "
                    f"{schema.field(name).type} in {where}, and "
                    f"{self.schema.field(name).type} in {self.schemas[0][1].place.shown!r}"
                )

    def selection(self, columns: Iterable[Column]) -> Selection:
        """Choose columns to read, of the rows that the filter leaves."""
        partitions = {field.name: field.type for field in self.partitions}
        needed: tuple[Column, ...] = ()
        if self.filter is not None:
            names = columns_of(self.filter, self.schema)
            needed = tuple(Column(name, self.schema.field(name).type) for name in names)
        return Selection(tuple(columns), partitions, self.filter, needed)
