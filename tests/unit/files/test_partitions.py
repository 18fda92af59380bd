"""The names of folders become values of the types that Spark infers.

`tests/integration/local/test_files.py` compares a longer list of names with Spark.
"""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal

import pyarrow as pa
import pytest

from kspark.files.listing import DataFile
from kspark.files.partitions import NULL, typed_files
from kspark.files.paths import Resolved


def column(*names, **settings):
    """The type and the values of a partition column."""
    files = [DataFile(Resolved("", name), {"key": name}) for name in names]
    typed, (field,) = typed_files(files, **settings)
    return field.type, [file.values["key"] for file in typed]


@pytest.mark.parametrize(
    ("names", "kind", "values"),
    [
        (["01", "+2", "-3"], pa.int32(), [1, 2, -3]),
        (["1", "3000000000"], pa.int64(), [1, 3_000_000_000]),
        (["1", "9" * 20], pa.decimal128(20, 0), [Decimal(1), Decimal("9" * 20)]),
        (["1e5", "2"], pa.decimal128(10, 0), [Decimal(100_000), Decimal(2)]),
        (["1.5", "2"], pa.float64(), [1.5, 2.0]),
        (["1.5f", "-Infinity"], pa.float64(), [1.5, float("-inf")]),
        (["1.5", "3000000000"], pa.string(), ["1.5", "3000000000"]),
        (["2024-01-02", "0001-01-01"], pa.date32(), [date(2024, 1, 2), date(1, 1, 1)]),
        (["2024-02-30"], pa.string(), ["2024-02-30"]),
        (["2024-01-02", "5"], pa.string(), ["2024-01-02", "5"]),
        (["inf", "1_0"], pa.string(), ["inf", "1_0"]),
        (["a%2Fb", NULL], pa.string(), ["a/b", None]),
        (["5", NULL], pa.int32(), [5, None]),
        ([NULL], pa.string(), [None]),
    ],
)
def test_names_become_values(names, kind, values):
    assert column(*names) == (kind, values)


def test_times_are_those_of_the_session():
    kind, (value,) = column("2024-01-02 03%3A04%3A05.5", zone="America/New_York")
    assert kind == pa.timestamp("us", tz="UTC")
    assert value == datetime(2024, 1, 2, 8, 4, 5, 500_000, tzinfo=timezone.utc)


def test_a_zone_that_python_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"`spark.sql.session.timeZone` must be.*'GMT\+2:30'"):
        column("2024-01-02 03%3A04%3A05", zone="GMT+2:30")


def test_names_stay_text_if_spark_does_not_infer_types():
    assert column("1", "2024-01-02", infer=False) == (pa.string(), ["1", "2024-01-02"])


def test_names_of_columns_are_unescaped():
    file = DataFile(Resolved("", "x"), {"a%3Db": "1"})
    assert typed_files([file])[1] == [pa.field("a=b", pa.int32())]
