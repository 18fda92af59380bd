"""Give partition columns the types and values that Spark infers from the names of folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import reduce
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from kspark.files.listing import DataFile

NULL = "__HIVE_DEFAULT_PARTITION__"
"""The name of a folder whose rows have no value."""

MAX_DIGITS = 38

WHOLE = re.compile(r"[+-]?[0-9]+")
EXACT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FLOAT = re.compile(
    r"[+-]?(NaN|Infinity|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[fFdD]?)", re.ASCII
)
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9])?")
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")

INT, LONG, DOUBLE, TEXT = pa.int32(), pa.int64(), pa.float64(), pa.string()
TIMESTAMP = pa.timestamp("us", tz="UTC")


def typed_files(
    files: Sequence[DataFile], *, infer: bool = True, zone: str = "UTC"
) -> tuple[list[DataFile], list[pa.Field]]:
    """Return files whose partition columns have values, and the fields of these columns.

    Args:
        files: Sequence of `DataFile`, whose values are the texts of folders.
        infer: Boolean, Spark's `spark.sql.sources.partitionColumnTypeInference.enabled`. Defaults
            to `True`.
        zone: String, Spark's `spark.sql.session.timeZone`. Defaults to `"UTC"`.
    """
    kinds = {}
    for key in files[0].values:
        texts = {file.values[key] for file in files}
        kinds[key] = reduce(wider, (kind_of(text, infer) for text in sorted(texts)))
    kinds = {key: TEXT if pa.types.is_null(kind) else kind for key, kind in kinds.items()}
    made = [
        replace(
            file,
            values={
                unescaped(key): value_of(text, kinds[key], zone)
                for key, text in file.values.items()
            },
        )
        for file in files
    ]
    return made, [pa.field(unescaped(key), kind) for key, kind in kinds.items()]


def kind_of(text: str, infer: bool) -> pa.DataType:
    """Return the type that Spark infers from the name of one folder."""
    if text == NULL:
        return pa.null()
    if not infer:
        return TEXT
    if WHOLE.fullmatch(text):
        number = int(text)
        if -(1 << 63) <= number < 1 << 63:
            return INT if -(1 << 31) <= number < 1 << 31 else LONG
    if (digits := exact_digits(text)) is not None:
        return pa.decimal128(digits, 0)
    if FLOAT.fullmatch(text.strip()):
        return DOUBLE
    if TIME.fullmatch(unescaped(text)) and is_time(unescaped(text)):
        return TIMESTAMP
    return pa.date32() if DATE.fullmatch(text) and is_time(f"{text} 00:00:00") else TEXT


def exact_digits(text: str) -> int | None:
    """Return the digits of a whole number as Spark's decimal, or `None` if it is none."""
    if not EXACT.fullmatch(text):
        return None
    _, digits, exponent = Decimal(text).as_tuple()
    count = len(digits) + int(exponent)
    return count if int(exponent) >= 0 and count <= MAX_DIGITS else None


def is_time(text: str) -> bool:
    """Whether a text is a time that exists."""
    try:
        datetime.fromisoformat(text.partition(".")[0])
    except ValueError:
        return False
    return True


def wider(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """Return the type that Spark gives to values of two types: text if no other one holds both."""
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    pair = {left, right}
    if pair == {INT, LONG}:
        return LONG
    if pair == {INT, DOUBLE}:
        return DOUBLE
    if pair == {pa.date32(), TIMESTAMP}:
        return TIMESTAMP
    digits = [digits_of(kind) for kind in pair]
    if None not in digits:
        return pa.decimal128(max(filter(None, digits)), 0)
    return TEXT


def digits_of(kind: pa.DataType) -> int | None:
    """Return the digits of a type of whole numbers as a decimal, or `None` for other types."""
    if pa.types.is_decimal(kind):
        return int(kind.precision)
    return {INT: 10, LONG: 20}.get(kind)


def value_of(text: str, kind: pa.DataType, zone: str) -> Any:
    """Return the value that a folder's name gives to its rows."""
    if text == NULL:
        return None
    if kind in (INT, LONG):
        return int(text)
    if kind == DOUBLE:
        return float(text.strip().rstrip("fFdD"))
    if pa.types.is_decimal(kind):
        return Decimal(int(Decimal(text)))
    if kind == pa.date32():
        return date.fromisoformat(text)
    if kind == TIMESTAMP:
        # Before 3.11, Python wants a fraction of three or six digits.
        name = unescaped(text)
        time = datetime.fromisoformat(f"{name}00" if "." in name else name)
        return time.replace(tzinfo=zone_of(zone)).astimezone(timezone.utc)
    return unescaped(text)


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of the session.

    Raises:
        ValueError: If Python does not know it.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(
            "`spark.sql.session.timeZone` must be a name such as 'Europe/Berlin', to read times "
            f"in the names of folders. Received: {name!r}"
        ) from error


def unescaped(text: str) -> str:
    """Return a name without Hive's escapes, such as `%3A` for a colon."""
    return ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
