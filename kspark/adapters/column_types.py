"""Check the types of a DataFrame's columns against the model, from the schema alone."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    MapType,
    NumericType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
    UserDefinedType,
)

from kspark.adapters.feeds import Feed, FramePlan
from kspark.shards import TEXT, LabelStats, ShardHandle, StoredArray

VECTOR_TYPES = ("pyspark.ml.linalg.VectorUDT", "pyspark.mllib.linalg.VectorUDT")


def check_types(plan: FramePlan, types: Mapping[str, DataType]) -> None:
    """Refuse columns whose values the model does not take.

    Args:
        plan: `FramePlan`.
        types: Mapping from the name of a column to its type.

    Raises:
        ValueError: If the type of a column is wrong. The error names the column.
    """
    for feed in (*plan.x, *plan.y, *plan.sample_weight):
        first = innermost(types[feed.names[0]])
        for name in feed.names:
            check_type(name, types[name], feed, beside_text=is_text(first))


def check_type(name: str, kind: DataType, feed: Feed, *, beside_text: bool) -> None:
    """Refuse a column whose values are neither numbers nor text, or not what the model takes.

    Args:
        name: String, name of the column.
        kind: `DataType` of the column.
        feed: `Feed` that contains the column.
        beside_text: Boolean, whether the first column of the feed is text.

    Raises:
        ValueError: If the type is another one.
    """
    inner = innermost(kind)
    is_free = feed.spec.dtype == "" or feed.spec.is_loose
    wants_text = feed.spec.dtype == TEXT or (is_free and beside_text)
    wants_any = is_free and len(feed.names) == 1
    is_number = isinstance(inner, NumericType | BooleanType) or is_vector_type(inner)
    if (is_number and not wants_text) or (is_text(inner) and wants_text):
        return
    if wants_any and (is_number or is_text(inner)):
        return
    if wants_any and feed.spec.is_loose and isinstance(inner, BinaryType):
        return
    numbers = "numbers, vectors, or arrays of these"
    rule = "numbers, text, vectors, or arrays of these" if wants_any else numbers
    if wants_text:
        rule = "text, or arrays of text"
    raise ValueError(
        f"Column {name!r} must hold {rule}. Received: type {kind.simpleString()}. "
        f"{advice(inner, feed, name, wants_text)}, or name another column in `{feed.argument}`."
    )


def advice(kind: DataType, feed: Feed, name: str, wants_text: bool) -> str:
    """Return how to convert values of a type that the model does not take."""
    is_feature = feed.argument == "features_col" and not wants_text
    if is_feature and isinstance(kind, BinaryType):
        return "Pass `preprocess`, which gets the bytes"
    if wants_text and isinstance(kind, NumericType | BooleanType):
        return 'Convert it with `.cast("string")`'
    if is_text(kind) and is_feature:
        return (
            "Pass `preprocess`, which gets the text or the bytes, or encode it as numbers, for "
            "example with StringIndexer"
        )
    if is_text(kind):
        return "Encode it as numbers, for example with StringIndexer"
    if isinstance(kind, DateType | TimestampType | TimestampNTZType):
        return "Convert it to numbers, for example with `unix_timestamp`"
    if isinstance(kind, StructType) and kind.fields:
        return f"Name one of its fields, such as {f'{name}.{kind.fields[0].name}'!r}"
    if isinstance(kind, MapType):
        return "Select its values as columns"
    return "Convert it"


def text_labels_of_schema(plan: FramePlan, types: Mapping[str, DataType]) -> dict[str, str]:
    """Return the targets whose columns are text, with their places; see `Examples.text_labels`.

    Args:
        plan: `FramePlan`.
        types: Mapping from the name of a column to its type.
    """
    text = {name for name, kind in types.items() if is_text(innermost(kind))}
    feeds = [feed for feed in plan.y if text.intersection(feed.names)]
    return {f.spec.name: f"text in {f.title[0].lower()}{f.title[1:]}" for f in feeds}


def summary_of_schema(plan: FramePlan, types: Mapping[str, DataType]) -> ShardHandle:
    """Describe labels and weights as far as the schema tells: the shapes of columns of numbers.

    Args:
        plan: `FramePlan`.
        types: Mapping from the name of a column to its type.
    """
    shapes = [number_shape(feed, types) for feed in plan.y]
    weights = [number_shape(feed, types) for feed in plan.sample_weight]
    return ShardHandle(
        index=0,
        num_examples=1,
        path="",
        host="",
        nbytes=0,
        y=tuple(StoredArray("y", "float64", shape or (), "", 0) for shape in shapes),
        stats=tuple(None if shape is None else LabelStats() for shape in shapes),
        sample_weight=tuple(
            StoredArray("sample_weight", "float64", shape, "", 0)
            for shape in weights
            if shape is not None and None not in weights
        ),
    )


def number_shape(feed: Feed, types: Mapping[str, DataType]) -> tuple[int, ...] | None:
    """Return the shape per row of columns of single numbers, or `None` for other columns."""
    if not all(isinstance(types[name], NumericType | BooleanType) for name in feed.names):
        return None
    return () if len(feed.names) == 1 else (len(feed.names),)


def innermost(kind: DataType) -> DataType:
    """Return the type of the elements of arrays of any depth, or the type itself."""
    while isinstance(kind, ArrayType):
        kind = kind.elementType
    return kind


def is_text(kind: DataType) -> bool:
    """Whether values of a type are strings."""
    return isinstance(kind, StringType)


def is_vector_type(kind: DataType) -> bool:
    """Whether a type is one of Spark's two vector types."""
    if not isinstance(kind, UserDefinedType):
        return False
    return f"{kind.module()}.{type(kind).__name__}" in VECTOR_TYPES
