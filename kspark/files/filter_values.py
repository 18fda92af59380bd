"""Give the values of filters the types of their columns, as Spark does."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa

from kspark.errors import invalid
from kspark.files.partitions import zone_of


def typed_value(value: Any, kind: pa.DataType, zone: str) -> Any:
    """Return a value to compare a column with.

    Texts and dates become times for a column of times, and texts become dates for one of dates.

    Args:
        value: The value that the user gave.
        kind: `pa.DataType` of the column.
        zone: String, time zone of times that have none.

    Raises:
        ValueError: If a text is no date or time.
    """
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if pa.types.is_date(kind):
        return parsed(value, date, "dates such as '2024-12-31' for a column of dates")
    if not pa.types.is_timestamp(kind):
        return value
    time = parsed(value, datetime, "times such as '2024-12-31 23:59:59' for a column of times")
    if isinstance(time, date) and not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day)
    return placed(time, kind.tz is not None, zone) if isinstance(time, datetime) else time


def parsed(value: Any, kind: type[date], rule: str) -> Any:
    """Return a text as a date or time, and other values as they are.

    Raises:
        ValueError: If the text is none.
    """
    if not isinstance(value, str):
        return value
    try:  # Before 3.11, Python does not know "Z".
        return kind.fromisoformat(f"{value[:-1]}+00:00" if value.endswith("Z") else value)
    except ValueError as error:
        raise invalid("filters", rule, value) from error


def placed(time: datetime, zoned: bool, zone: str) -> datetime:
    """Return a time in UTC for a column of zoned times, or a time of the session for another."""
    if zoned:
        known = time if time.tzinfo is not None else time.replace(tzinfo=zone_of(zone))
        return known.astimezone(timezone.utc)
    return time if time.tzinfo is None else time.astimezone(zone_of(zone)).replace(tzinfo=None)


def is_nan(value: Any) -> bool:
    """Whether a value is the floating point number that equals no number."""
    return isinstance(value, float | np.floating) and bool(value != value)
