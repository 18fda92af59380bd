"""Spark's types for the columns of Parquet files, and what pyarrow reads differently.

Spark reads the Parquet types alone, whereas pyarrow follows the Arrow types that another pyarrow
left in the file. Most of these differ in name only. Times as INT96 become times in UTC.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

ROW_METADATA = b"org.apache.spark.sql.parquet.row.metadata"
"""Key under which Spark writes its schema, as JSON, to a file."""

SPARK_VERSION = b"org.apache.spark.version"
LEGACY_KEYS = (b"org.apache.spark.legacyDateTime", b"org.apache.spark.legacyINT96")
"""Keys of files whose dates follow the Julian calendar before 1582."""

KEPT_KEYS = {ROW_METADATA, SPARK_VERSION, *LEGACY_KEYS}
"""Keys that say how to read a column. Others, as those of pandas, differ from file to file."""

BY_SPARK = "read the files with `spark.read.parquet`"

VECTOR_FIELDS = ["type", "size", "indices", "values"]
VARIANT = re.compile(r'(type|Type)": "variant"')
VARIANT_FIELDS = {"metadata", "value"}
TIMESTAMP = pa.timestamp("us", tz="UTC")

VIEWS = {"string_view": pa.string(), "binary_view": pa.binary()}
"""Types of newer Arrow that most functions of pyarrow do not take, and what to read in place."""

SIMPLE: tuple[tuple[Callable[[pa.DataType], bool], DataType], ...] = (
    (pa.types.is_boolean, BooleanType()),
    (pa.types.is_int8, ByteType()),
    (pa.types.is_int16, ShortType()),
    (pa.types.is_int32, IntegerType()),
    (pa.types.is_int64, LongType()),
    (pa.types.is_uint8, ShortType()),
    (pa.types.is_uint16, IntegerType()),
    (pa.types.is_uint32, LongType()),
    (pa.types.is_uint64, DecimalType(20, 0)),
    (pa.types.is_float32, FloatType()),
    (pa.types.is_float64, DoubleType()),
    (pa.types.is_string, StringType()),
    (pa.types.is_large_string, StringType()),
    (pa.types.is_binary, BinaryType()),
    (pa.types.is_large_binary, BinaryType()),
    (pa.types.is_fixed_size_binary, BinaryType()),
    (pa.types.is_date, DateType()),
    (pa.types.is_duration, LongType()),
    (pa.types.is_null, IntegerType()),
)

PLAIN: tuple[tuple[Callable[[pa.DataType], bool], pa.DataType], ...] = (
    (pa.types.is_uint8, pa.int16()),
    (pa.types.is_uint16, pa.int32()),
    (pa.types.is_uint32, pa.int64()),
    (pa.types.is_uint64, pa.decimal128(20, 0)),
    (pa.types.is_null, pa.int32()),
    (pa.types.is_duration, pa.int64()),
    (pa.types.is_date, pa.date32()),
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_fixed_size_binary, pa.binary()),
)
"""Of the types in `SIMPLE`, those that are not the plainest ones of their type of Spark."""


def spark_type(kind: pa.DataType) -> DataType | None:
    """Return the type that Spark gives to a column, or `None` if Spark does not read it."""
    for matches, found in SIMPLE:
        if matches(kind):
            return found
    if pa.types.is_dictionary(kind):
        return spark_type(kind.value_type)
    if pa.types.is_decimal(kind):
        return DecimalType(kind.precision, kind.scale) if kind.precision <= 38 else None
    if pa.types.is_timestamp(kind):
        plain: DataType = TimestampNTZType() if kind.tz is None else TimestampType()
        return None if kind.unit == "ns" else plain
    return nested_type(kind)


def nested_type(kind: pa.DataType) -> DataType | None:
    """Return Spark's type of lists, maps and structs; `None` if a part has none."""
    if pa.types.is_map(kind):
        key, item = spark_type(kind.key_type), spark_type(kind.item_type)
        return None if key is None or item is None else MapType(key, item)
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        if names == VECTOR_FIELDS:
            from pyspark.ml.linalg import VectorUDT  # Its package imports all of Spark ML.

            return VectorUDT()
        parts = [spark_type(field.type) for field in kind]
        if None in parts or is_variant(kind):
            return None
        pairs = zip(names, parts, strict=True)
        return StructType([StructField(name, part) for name, part in pairs if part is not None])
    if is_list(kind):
        element = spark_type(kind.value_type)
        return None if element is None else ArrayType(element)
    if isinstance(kind, pa.FixedShapeTensorType):
        return spark_type(kind.storage_type)
    return None


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the one Arrow type to which all types with the same type of Spark are converted."""
    for matches, plain in PLAIN:
        if matches(kind):
            return plain
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= 38 else kind
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if isinstance(kind, pa.FixedShapeTensorType):
        return plain_type(kind.storage_type)
    return pa.list_(plain_type(kind.value_type)) if is_list(kind) else kind


def is_variant(kind: pa.StructType) -> bool:
    """Whether a struct has the parts of Spark's VARIANT, of which Spark makes values itself."""
    binary = {
        f.name for f in kind if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)
    }
    return binary >= VARIANT_FIELDS


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is some kind of list."""
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in checks)


def schema_of(file: pq.ParquetFile) -> pa.Schema:
    """Return the schema of a file, in which times as INT96 are times in UTC, as for Spark."""
    leaves = (file.schema.column(i).physical_type for i in range(len(file.schema)))
    fields = [field.with_type(with_times(field.type, leaves)) for field in file.schema_arrow]
    metadata = file.metadata.metadata or {}
    kept = {key: value for key, value in metadata.items() if key in KEPT_KEYS}
    return pa.schema(fields, metadata=kept)


def with_times(kind: pa.DataType, leaves: Iterator[str]) -> pa.DataType:
    """Replace the types of INT96, and of views, in a type.

    Args:
        kind: `pa.DataType`.
        leaves: Iterator of strings, the physical types of this and the following columns of
            Parquet, one for each part of `kind` that has values.
    """
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(with_times(field.type, leaves)) for field in kind])
    if pa.types.is_map(kind):
        key, item = with_times(kind.key_type, leaves), with_times(kind.item_type, leaves)
        return kind if item == kind.item_type else pa.map_(key, kind.item_field.with_type(item))
    if is_list(kind):
        element = kind.value_field.with_type(with_times(kind.value_type, leaves))
        return kind if element == kind.value_field else list_of(kind, element)
    if isinstance(kind, pa.BaseExtensionType):
        with_times(kind.storage_type, leaves)
        return kind
    return TIMESTAMP if next(leaves, "") == "INT96" else VIEWS.get(str(kind), kind)


def list_of(kind: pa.DataType, element: pa.Field) -> pa.DataType:
    """Return a list type of the same kind with another element."""
    return pa.large_list(element) if pa.types.is_large_list(kind) else pa.list_(element)


def spark_fields(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the JSON of the fields of a schema by name, as Spark wrote it to the file if it did.

    The JSON is only handed on: Spark's own reader of it can run code for user-defined types.
    """
    found = dict(written_fields((schema.metadata or {}).get(ROW_METADATA, b"{}")))
    for field in schema:
        kind = spark_type(field.type)
        if field.name not in found and kind is not None:
            found[field.name] = StructField(field.name, kind).jsonValue()
    return found


@lru_cache(maxsize=16)
def written_fields(text: bytes) -> dict[str, dict[str, Any]]:
    """Return the JSON of the fields in Spark's description of a file by name."""
    return {field["name"]: field for field in json.loads(text).get("fields", ())}


def is_legacy(schema: pa.Schema) -> bool:
    """Whether dates in a file follow the Julian calendar before 1582, as Spark 2 wrote them."""
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    return metadata.get(SPARK_VERSION, b"").startswith(b"2.") or any(
        key in metadata for key in LEGACY_KEYS
    )


def has_times(kind: pa.DataType) -> bool:
    """Whether a type has dates or times in it."""
    if pa.types.is_nested(kind):
        return any(has_times(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_temporal(kind))


@dataclass(frozen=True)
class Description:
    """What a file says of its columns. It is read once, because it may be of megabytes.

    Attributes:
        schema: `pa.Schema`.
        written: Dictionary from column to the JSON with which Spark describes it, if it does.
        is_legacy: Boolean, see the function `is_legacy`.
    """

    schema: pa.Schema
    written: dict[str, dict[str, Any]]
    is_legacy: bool

    @classmethod
    def of(cls, schema: pa.Schema) -> Description:
        """Read the description of a schema."""
        written = written_fields((schema.metadata or {}).get(ROW_METADATA, b"{}"))
        return cls(schema, written, is_legacy(schema))

    def reason_to_refuse(self, name: str) -> tuple[str, str] | None:
        """Return what Spark and pyarrow read differently in a column, and what to do about it."""
        kind = self.schema.field(name).type
        if VARIANT.search(json.dumps(self.written.get(name, {}))):
            return "VARIANT", BY_SPARK
        if spark_type(kind) is None:
            way = "write it in another type"
            if "timestamp[ns" in str(kind):
                way = 'write it again: `df.to_parquet(path, coerce_timestamps="us")`'
            return f"type {kind}, which Spark does not read", way
        if self.is_legacy and has_times(kind):
            return "dates or times of the calendar of Spark 2", BY_SPARK
        return None
