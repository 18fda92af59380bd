"""Columns have Spark's types, and those that Spark reads differently are refused by name."""

from __future__ import annotations

import json
from datetime import datetime, time
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kspark.files.types import ROW_METADATA, schema_of, spark_fields, spark_type

FAR = datetime(9999, 12, 31, 23, 59, 59, 123_456)


@pytest.mark.parametrize(
    ("kind", "simple"),
    [
        (pa.uint8(), "smallint"),
        (pa.uint32(), "bigint"),
        (pa.uint64(), "decimal(20,0)"),
        (pa.large_string(), "string"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
        (pa.timestamp("ms"), "timestamp_ntz"),
        (pa.timestamp("us", tz="Europe/Berlin"), "timestamp"),
        (pa.duration("us"), "bigint"),
        (pa.list_(pa.float32(), 3), "array<float>"),
        (pa.map_(pa.string(), pa.int8()), "map<string,tinyint>"),
        (pa.struct([("a", pa.date64())]), "struct<a:date>"),
        (pa.decimal256(20, 2), "decimal(20,2)"),
    ],
)
def test_types_are_those_of_spark(kind, simple):
    assert spark_type(kind).simpleString() == simple


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.float16(), pa.time64("us"), pa.timestamp("ns"), pa.decimal256(50, 2)),
        *(pa.list_(pa.float16()), pa.map_(pa.string(), pa.time32("s"))),
        pa.struct([("a", pa.timestamp("ns"))]),
    ],
)
def test_types_that_spark_does_not_read_have_none(kind):
    assert spark_type(kind) is None


def test_times_as_int96_are_read_whole_and_in_utc(made, tmp_path):
    columns = {
        "n": [1],
        "far": pa.array([FAR], pa.timestamp("us")),
        "nested": pa.array([[{"t": FAR, "u": "x"}]]),
        "mapped": pa.array([[("a", FAR)]], pa.map_(pa.string(), pa.timestamp("us"))),
    }
    path = made.write(tmp_path / "t.parquet", columns, use_deprecated_int96_timestamps=True)
    assert pq.read_table(path)["far"][0].as_py().year == 1816  # What pyarrow makes of it.
    (rows,) = made.rows(made.open([path]), *columns)
    assert [row["far"].replace(tzinfo=None) for row in rows] == [FAR]
    assert rows[0]["nested"][0]["t"].replace(tzinfo=None) == FAR
    assert rows[0]["mapped"][0][1].replace(tzinfo=None) == FAR
    assert made.open([path]).column("far").kind == pa.timestamp("us", tz="UTC")


def test_views_are_read_as_plain_text(made, tmp_path):
    kind = getattr(pa, "string_view", pa.string)()  # Older pyarrow has none.
    path = made.write(tmp_path / "t.parquet", {"text": pa.array(["a"], kind)})
    assert made.open([path]).column("text").kind == pa.string()
    assert made.rows(made.open([path]), "text") == [[{"text": "a"}]]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros(1, "f2"), "type halffloat"),
        ([time(1)], "type time64"),
        (pa.array([FAR.replace(year=2000)], pa.timestamp("ns")), r"type timestamp\[ns\]"),
        (pa.array([Decimal("1.5")], pa.decimal256(50, 2)), "type decimal256"),
        ([{"metadata": b"", "value": b""}], "type struct"),
    ],
)
def test_what_spark_does_not_read_is_refused_by_name(made, tmp_path, values, found):
    path = made.write(tmp_path / "t.parquet", {"id": [1], "odd": values})
    files = made.open([path])
    assert made.rows(files, "id") == [[{"id": 1}]]  # Other columns do not matter.
    with pytest.raises(ValueError, match=f"Column 'odd' must hold.*{found}.*t.parquet"):
        files.column("odd")


def written_by_spark(fields, **metadata):
    """Metadata of a file as Spark writes them."""
    row = json.dumps({"type": "struct", "fields": fields})
    return {ROW_METADATA: row.encode(), **{k.replace("_", "."): v for k, v in metadata.items()}}


def test_a_variant_is_refused_even_if_spark_took_it_apart(made, tmp_path):
    kind = pa.struct(
        [("metadata", pa.binary()), ("value", pa.binary()), ("typed_value", pa.int8())]
    )
    field = {"name": "v", "type": {"type": "array", "elementType": "variant"}}
    table = pa.table({"v": pa.array([None], pa.list_(kind))})
    path = tmp_path / "t.parquet"
    pq.write_table(table.replace_schema_metadata(written_by_spark([field])), path)
    with pytest.raises(ValueError, match=r"Column 'v'.*VARIANT.*spark\.read\.parquet"):
        made.open([str(path)]).column("v")


@pytest.mark.parametrize(
    "metadata", [{"org_apache_spark_version": b"2.4.8"}, {"org_apache_spark_legacyDateTime": b""}]
)
def test_dates_of_an_older_calendar_are_refused(made, tmp_path, metadata):
    table = pa.table({"day": pa.array([[0]], pa.list_(pa.date32())), "id": [1]})
    path = tmp_path / "t.parquet"
    pq.write_table(table.replace_schema_metadata(written_by_spark([], **metadata)), path)
    files = made.open([str(path)])
    assert files.column("id") is not None
    with pytest.raises(ValueError, match="calendar of Spark 2"):
        files.column("day")


def test_the_description_that_spark_wrote_is_handed_on():
    udt = {"type": "udt", "class": "org.apache.spark.ml.linalg.VectorUDT", "pyClass": "no.such"}
    field = {"name": "v", "type": udt, "nullable": True, "metadata": {"comment": "x"}}
    schema = pa.schema([("v", pa.int8()), ("w", pa.int8())], metadata=written_by_spark([field]))
    fields = spark_fields(schema)
    assert fields["v"] == field and fields["w"]["type"] == "byte"


def test_metadata_of_pandas_do_not_tell_schemas_apart(made, tmp_path):
    for i in range(2):
        table = pa.table({"id": [i]}).replace_schema_metadata({"pandas": str(i)})
        pq.write_table(table, tmp_path / f"{i}.parquet")
    files = made.open([str(tmp_path)])
    assert len(files.schemas) == 1
    with pq.ParquetFile(tmp_path / "0.parquet") as file:
        assert schema_of(file).metadata is None or not schema_of(file).metadata


def test_a_column_that_is_named_variant_is_none(made, tmp_path):
    kind = {"type": "struct", "fields": [{"name": "variant", "type": "long"}]}
    table = pa.table({"variant": pa.array([{"variant": 1}])})
    field = {"name": "variant", "type": kind}
    path = tmp_path / "t.parquet"
    pq.write_table(table.replace_schema_metadata(written_by_spark([field])), path)
    files = made.open([str(path)])
    assert files.column("variant.variant").kind == pa.int64()
    assert files.fields["variant"] == field


def test_filters_take_views(made, tmp_path):
    kind = getattr(pa, "string_view", pa.string)()  # Older pyarrow has none.
    text = pa.array(["a", "b", None], kind)
    path = made.write(tmp_path / "t.parquet", {"id": [0, 1, 2], "text": text})
    assert made.ids(made.open([path], [("text", "=", "b")])) == [[1]]
    assert made.ids(made.open([path], [("text", "not in", ["b"])])) == [[0]]
    assert made.ids(made.open([path], [("id", ">", 1)])) == [[2]]
