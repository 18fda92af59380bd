"""Pieces are read in order and in bounded batches, with partitions, fields and filters."""

from __future__ import annotations

import os
import pickle
from datetime import date

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from kspark.errors import ClusterError
from kspark.files import reading
from kspark.files.reading import read_pieces
from kspark.files.types import spark_type

SECOND = pa.scalar(19724, pa.date32())
"""2024-01-02."""


@pytest.fixture
def three(made, tmp_path):
    """Ids 0 to 99 in three files of two folders, in row groups of 15."""
    made.numbered(tmp_path / "day=2024-01-01/a.parquet", 0, 40, 15)
    made.numbered(tmp_path / "day=2024-01-01/b.parquet", 40, 70, 15)
    made.numbered(tmp_path / "day=2024-01-02/a.parquet", 70, 100, 15)
    return tmp_path


@pytest.mark.parametrize("shards", [1, 3, 7, 100])
def test_shards_read_all_rows_in_order(made, three, shards):
    found = made.ids(made.open([str(three)]), shards)
    assert len(found) == shards
    assert [i for ids in found for i in ids] == list(range(100))


def test_partition_columns_are_columns(made, three):
    (rows,) = made.rows(made.open([str(three)]), "day", "id")
    assert {str(row["day"]) for row in rows if row["id"] >= 70} == {"2024-01-02"}
    (days,) = made.rows(made.open([str(three)]), "day")
    assert len(days) == 100 and str(days[0]["day"]) == "2024-01-01"


def test_a_partition_column_covers_one_of_the_file(made, tmp_path):
    made.write(tmp_path / "a=7/x.parquet", {"a": [1.5], "b": [1]})
    files = made.open([str(tmp_path)])
    assert files.schema == pa.schema([("a", pa.int32()), ("b", pa.int64())])
    assert made.rows(files, "b", "a") == [[{"b": 1, "a": 7}]]


def test_a_folder_and_a_column_that_differ_in_case_are_refused(made, tmp_path):
    made.write(tmp_path / "day=1/x.parquet", {"Day": [5], "id": [0]})
    files = made.open([str(tmp_path)])
    assert files.column("id").name == "id"
    with pytest.raises(ValueError, match=r"must differ in more than upper case.*\['Day', 'day'\]"):
        files.column("DAY")
    strict = made.open([str(tmp_path)], ignore_case=False)
    assert made.rows(strict, "Day", "day") == [[{"Day": 5, "day": 1}]]


def test_fields_of_structs_and_other_spellings(made, tmp_path):
    columns = {"Row": [{"X": 1, "y": {"z": [1.5]}}], "row.a": [3]}
    files = made.open([made.write(tmp_path / "t.parquet", columns)])
    found = made.rows(files, "Row.X", "Row.y.z", "row.a", "ROW.X")
    assert found == [[{"Row.X": 1, "Row.y.z": [1.5], "row.a": 3, "ROW.X": 1}]]
    assert [files.column(name) for name in ("none", "Row.none", "row.a.b", "Row.X.Y")] == [None] * 4
    strict = made.open([str(tmp_path / "t.parquet")], ignore_case=False)
    assert strict.column("row") is None and strict.column("Row") is not None


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ([("id", ">", 96)], [97, 98, 99]),
        ([("id", "in", [3, 50])], [3, 50]),
        ([[("id", "<", 2)], [("id", "==", 99)]], [0, 1, 99]),
        ([("day", "=", "2024-01-02"), ("id", "<", 72)], [70, 71]),
        ([[("day", "in", ["2024-01-02"]), ("id", "<", 71)], [("id", "=", 3)]], [3, 70]),
        ([("day", "=", date(2024, 1, 2)), ("id", "<", 71)], [70]),
        ((("ID", "<", 1),), [0]),
        ([("Day", "not in", {"2024-01-01"}), ("id", "<", 71)], [70]),
        ([("id", "in", [])], []),
        (pc.bit_wise_and(pc.field("id"), pc.scalar(63)) == 1, [1, 65]),
        ((pc.field("day") == SECOND) & (pc.field("id") < 72), [70, 71]),
    ],
)
def test_filters_choose_rows_exactly(made, three, filters, ids):
    files = made.open([str(three)], filters)
    assert sum(made.ids(files, 2), []) == ids
    selection = files.selection([files.column("id")])
    again = pickle.loads(pickle.dumps(selection))
    assert again.filter.equals(selection.filter)


def test_filters_leave_row_groups_out_by_their_statistics(made, three):
    groups = {
        "id": len(made.open([str(three)], [("id", ">=", 85)]).groups),
        "day": len(made.open([str(three)], pc.field("day") == SECOND).groups),
        "all": len(made.open([str(three)], [("id", ">=", 0)]).groups),
    }
    assert groups == {"id": 1, "day": 2, "all": 7}


def test_the_first_rows_of_a_filter_are_not_known(made, three):
    with pytest.raises(ValueError, match="`filters` must be None if only the first batches"):
        made.open([str(three)], [("id", ">", 20)]).first(5)


@pytest.mark.parametrize(
    "filters",
    [
        *("id > 3", [("id", "~", 3)], [("id",)], 5, [], [("none", "=", 1)]),
        *([("day", "=", "none")], [("id", "=", "text")], pc.field("none") == 1),
        *([("id", "in", 3)], [("id", ">", object())], [[]], [("id", ">", 2**70)]),
    ],
)
def test_filters_that_are_not_usable_are_refused(made, three, filters):
    with pytest.raises(ValueError, match="`filters` must be"):
        made.open([str(three)], filters)


@pytest.mark.parametrize("sign", ["in", "~"])
def test_errors_about_filters_show_the_first_of_many_values(made, three, sign):
    values = ["text"] * 100_000
    with pytest.raises(ValueError, match="`filters` must be") as caught:
        made.open([str(three)], [("id", sign, values)])
    assert len(str(caught.value)) < 800


def test_rows_that_a_filter_of_large_batches_leaves_stay_in_order(made, tmp_path):
    count = 200_000
    path = made.numbered(tmp_path / "t.parquet", 0, count, count)
    files = made.open([path], pc.bit_wise_and(pc.field("id"), pc.scalar(1)) == 1)
    selection = files.selection([files.column("id")])
    parts = [b.column(0).to_numpy() for b in read_pieces(files.split(1)[0], selection)]
    assert (np.concatenate(parts) == np.arange(1, count, 2)).all()


def test_batches_are_small_even_if_the_file_is(made, tmp_path, monkeypatch):
    """A dictionary stores a long text once, so the file tells little about the batch."""
    monkeypatch.setattr(reading, "BATCH_BYTES", 1 << 20)
    path = made.write(tmp_path / "t.parquet", {"text": ["x" * 10_000] * 2000})
    assert os.path.getsize(path) < 100_000
    files = made.open([path])
    batches = list(read_pieces(files.split(1)[0], files.selection([files.column("text")])))
    assert sum(batch.num_rows for batch in batches) == 2000
    assert max(batch.nbytes for batch in batches) <= 1 << 20


@pytest.mark.parametrize("dictionary", [True, False])
def test_batches_are_small_even_if_the_first_rows_are_smaller(
    made, tmp_path, monkeypatch, dictionary
):
    monkeypatch.setattr(reading, "BATCH_BYTES", 1 << 20)
    columns = {"text": [""] * 100 + ["x" * 10_000] * 2000, "id": np.arange(2100)}
    path = made.write(tmp_path / "t.parquet", columns, use_dictionary=dictionary)
    files = made.open([path])
    selection = files.selection([files.column("text"), files.column("id")])
    batches = list(read_pieces(files.split(1)[0], selection))
    assert [i for b in batches for i in b.column(1).to_pylist()] == list(range(2100))
    assert max(batch.nbytes for batch in batches) <= 1.5 * (1 << 20)


@pytest.mark.parametrize("size", [20_000, 400_000])
def test_memory_does_not_grow_with_the_rows(made, tmp_path, monkeypatch, size):
    monkeypatch.setattr(reading, "BUFFER_BYTES", 1 << 18)
    monkeypatch.setattr(reading, "BATCH_BYTES", 1 << 16)
    rows = np.random.default_rng(0).random(400_000)
    plain = {"row_group_size": size, "use_dictionary": False}
    path = made.write(tmp_path / "t.parquet", {"x": rows}, **plain)
    files = made.open([path])
    del rows
    before, most = pa.total_allocated_bytes(), 0
    for _ in read_pieces(files.split(1)[0], files.selection([files.column("x")])):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 1 << 21 < os.path.getsize(path)


def test_a_file_that_a_host_does_not_find_names_both(made, three):
    files = made.open([str(three)])
    (three / "day=2024-01-01/b.parquet").unlink()
    with pytest.raises(ClusterError, match=r"Host \S+ cannot read '.*b\.parquet'.*all hosts share"):
        made.ids(files)


def test_a_file_that_changed_is_an_error(made, three):
    files = made.open([str(three)])
    made.numbered(three / "day=2024-01-02/a.parquet", 0, 5, 5)
    with pytest.raises(ClusterError, match="has 5 rows on host .* but had 30"):
        made.ids(files)


def test_a_file_of_as_many_rows_that_was_replaced_is_an_error(made, tmp_path):
    path, store = tmp_path / "t.parquet", fsspec.filesystem("memory")
    made.write(path, {"id": [1, 2, 3]})
    store.pipe("/changed/t.parquet", path.read_bytes())
    disk, memory = made.open([str(path)]), made.open(["memory://changed"])
    made.write(path, {"id": [1, 2, 4]})  # Of the same size.
    assert path.stat().st_size == disk.files[0].version[0]
    os.utime(path, ns=(1, 1))
    made.write(tmp_path / "other.parquet", {"id": [1, 2, 3], "longer": [1, 2, 3]})
    store.pipe("/changed/t.parquet", (tmp_path / "other.parquet").read_bytes())
    for files in (disk, memory):
        with pytest.raises(ClusterError, match="has another size or time of change on host"):
            made.ids(files)
    store.rm("/changed", recursive=True)


def test_files_without_rows(made, tmp_path):
    files = made.open([made.numbered(tmp_path / "t.parquet", 0, 0, 5)])
    assert files.num_rows == 0 and made.ids(files, 2) == [[], []]


def test_another_kind_of_file_is_refused(made, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n" * 10)
    with pytest.raises(ValueError, match=r"rows\.csv' must be a Parquet file\. .*[^.]\. Read it"):
        made.open([str(tmp_path)])


def test_columns_go_by_name_and_must_be_in_all_files(made, tmp_path):
    made.write(tmp_path / "0.parquet", {"id": [0], "x": [1.0], "t": ["a"]})
    made.write(tmp_path / "1.parquet", {"t": ["b"], "x": ["no number"], "id": [1]})
    made.write(tmp_path / "2.parquet", {"id": [2], "t": pa.array(["c"]).dictionary_encode()})
    files = made.open([str(tmp_path)])
    assert made.rows(files, "t", "id") == [
        [{"t": "a", "id": 0}, {"t": "b", "id": 1}, {"t": "c", "id": 2}]
    ]
    with pytest.raises(ValueError, match=r"Column 'x' must have one type.*string.*1\.parquet"):
        files.column("x")
    made.write(tmp_path / "1.parquet", {"id": [1], "x": [1.0]})
    with pytest.raises(ValueError, match=r"All files must have the column 'x'.*2\.parquet"):
        made.open([str(tmp_path)]).column("x")


FEW = np.arange(4.0)
ALIKE = [
    (pa.array([1, 2], pa.timestamp("ms")), pa.array([1001, 2001], pa.timestamp("us"))),
    (pa.array([1], pa.timestamp("ms", "UTC")), pa.array([5], pa.timestamp("us", "Asia/Tokyo"))),
    (pa.array([1], pa.uint8()), pa.array([-1], pa.int16())),
    (pa.array([1], pa.uint32()), pa.array([-1, None], pa.int64())),
    (pa.array([1], pa.uint64()), pa.array([-1], pa.decimal128(20, 0))),
    (pa.nulls(1), pa.array([7], pa.int32())),
    (pa.array([5], pa.duration("us")), pa.array([7], pa.int64())),
    (pa.array(["a"]).dictionary_encode(), pa.array(["b"], pa.large_string())),
    (pa.array([b"ab"], pa.binary(2)), pa.array([b"abc"], pa.binary(3))),
    (pa.FixedSizeListArray.from_arrays(FEW, 2), pa.FixedSizeListArray.from_arrays(FEW, 4)),
    (pa.array([[1]], pa.large_list(pa.uint32())), pa.array([[-1]], pa.list_(pa.int64()))),
    (
        pa.array([{"a": 1}], pa.struct([("a", pa.uint8())])),
        pa.array([{"a": -1}], pa.struct([("a", pa.int16())])),
    ),
    (
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.uint8())),
        pa.array([[("a", -1)]], pa.map_(pa.string(), pa.int16())),
    ),
]
"""Values in two types of Arrow that Spark reads as the same type."""


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("arrays", ALIKE, ids=lambda arrays: str(arrays[0].type))
def test_files_may_differ_in_types_that_are_one_for_spark(made, tmp_path, arrays, order):
    arrays = arrays[::order]
    for i, array in enumerate(arrays):
        made.write(tmp_path / f"{i}.parquet", {"x": array})
    files = made.open([str(tmp_path)])
    kind = files.column("x").kind
    assert spark_type(kind) == spark_type(arrays[0].type)
    (rows,) = made.rows(files, "x")
    expected = pa.chunked_array([array.cast(kind) for array in arrays]).to_pylist()
    assert [row["x"] for row in rows] == expected
    if not pa.types.is_nested(kind):
        files = made.open([str(tmp_path)], [("x", "=", expected[-1])] if expected[-1] else None)
        assert {"x": expected[-1]} in made.rows(files, "x")[0]


def test_fsspec_reads_what_pyarrow_does_not_reach(made, tmp_path):
    store = fsspec.filesystem("memory")
    for i in range(3):
        made.numbered(tmp_path / f"{i}.parquet", 10 * i, 10 * i + 10, 4)
        store.pipe(f"/rows/day={i % 2}/{i}.parquet", (tmp_path / f"{i}.parquet").read_bytes())
    files = made.open(["memory://rows"], [("id", ">", 3), ("day", "=", 0)])
    assert sum(made.ids(files, 2), []) == [*range(4, 10), *range(20, 30)]
    assert made.ids(made.open(["memory://rows/*/1.parquet"])) == [list(range(10, 20))]
    store.store.clear()
