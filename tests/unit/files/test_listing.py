"""Paths, patterns and folders name the files that Spark would read, in order."""

from __future__ import annotations

import pytest

from kspark.files.listing import list_files, would_read


@pytest.fixture
def folder(tmp_path):
    """Files with one byte, as listing reads none."""
    for name in (
        "b.parquet", "a.parquet", "_SUCCESS", ".a.crc", "_temporary/0/c.parquet", "x._COPYING_",
        "many/n1/1.parquet", "many/n2/2.parquet", "many/_old/3.parquet",
        "days/day=2/b.parquet", "days/day=1/z.parquet", "days/_day=1.x/.hidden/q.parquet",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.parquet").touch()
    return tmp_path


def names(folder, *paths):
    """The names of the files that are found, relative to the folder."""
    found = list_files([f"{folder}/{path}" for path in paths])
    return [file.place.path.removeprefix(f"{folder}/") for file in found]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["*.parquet"], ["a.parquet", "b.parquet"]),
        (["b.parquet", "a.parquet"], ["b.parquet", "a.parquet"]),
        (["[ab].parq*"], ["a.parquet", "b.parquet"]),
        (["[^b].parquet"], ["a.parquet"]),
        (["{b,a}.parquet"], ["a.parquet", "b.parquet"]),
        (["many/*/?.parquet"], ["many/n1/1.parquet", "many/n2/2.parquet"]),
        (["many/n*"], ["many/n1/1.parquet", "many/n2/2.parquet"]),
        (["many/{n1,n2}"], ["many/n1/1.parquet", "many/n2/2.parquet"]),
        (["days"], ["days/day=1/z.parquet", "days/day=2/b.parquet"]),
        (["days/*"], ["days/day=1/z.parquet", "days/day=2/b.parquet"]),
        (["days/day=2"], ["days/day=2/b.parquet"]),
    ],
)  # fmt: skip
def test_paths_name_files(folder, paths, found):
    if paths == ["*.parquet"]:
        (folder / "empty.parquet").unlink()
    assert names(folder, *paths) == found


def test_files_of_a_folder_without_rows_and_hidden_ones_are_left_out(folder):
    (folder / "rows").mkdir()
    for name in ("a.parquet", "_SUCCESS", ".a.crc", "_metadata", "x._COPYING_"):
        (folder / "rows" / name).write_bytes(b"x")
    (folder / "rows" / "empty.parquet").touch()
    assert names(folder, "rows") == ["rows/a.parquet"]


def test_partitions_are_those_below_the_path(folder):
    values = [file.values for file in list_files([f"{folder}/days"])]
    assert values == [{"day": "1"}, {"day": "2"}]
    assert [file.values for file in list_files([f"{folder}/days/*"])] == [{}, {}]


def test_a_name_with_brackets_is_itself_if_it_exists(folder):
    (folder / "[ab].parquet").write_bytes(b"x")
    assert names(folder, "[ab].parquet") == ["[ab].parquet"]


def test_a_uri_names_the_local_disk(folder):
    (found,) = list_files([f"file://{folder}/a.parquet"])
    assert found.place.path == f"{folder}/a.parquet" and not found.place.root


@pytest.mark.parametrize("path", ["none.parquet", "*.csv", "_nothing", "many/n1/1.parquet/x"])
def test_a_path_without_files_is_an_error(folder, path):
    with pytest.raises(FileNotFoundError) as caught:
        names(folder, path)
    assert path in str(caught.value)


def test_a_folder_with_hidden_files_only_is_an_error(folder):
    with pytest.raises(FileNotFoundError, match="no Parquet files"):
        names(folder, "days/_day=1.x")


def test_folders_that_are_no_partitions_are_refused(folder):
    with pytest.raises(ValueError, match=r"must be named `column=value`.*'n1'.*many/\*"):
        names(folder, "many")


def test_folders_with_other_columns_are_refused(folder):
    (folder / "days/hour=1").mkdir()
    (folder / "days/hour=1/a.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"same columns.*\['day'\].*\['hour'\]"):
        names(folder, "days")


@pytest.mark.parametrize(
    ("log", "found"),
    [
        *(("_delta_log/0.json", "delta"), (".hoodie/x", "hudi")),
        ("metadata/v1.metadata.json", "iceberg"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "partitions"])
def test_tables_of_other_formats_are_refused(tmp_path, log, found, kind):
    inner = "data" if found == "iceberg" else "."
    path = tmp_path / "t" / inner / ("day=1" if kind == "partitions" else ".") / "a.parquet"
    for one in (tmp_path / "t" / log, path):
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text("x")
    for name in (
        tmp_path / "t",
        tmp_path / "t" / inner,
        path.parent,
        path,
        path.parent / "*.parq*",
    ):
        with pytest.raises(ValueError, match=rf"`spark\.read\.format\('{found}'\)"):
            list_files([str(name)])


def test_a_folder_that_is_named_metadata_is_none_of_a_table(tmp_path):
    for name in ("a.parquet", "metadata/a.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert len(list_files([str(tmp_path / "a.parquet"), str(tmp_path / "metadata")])) == 2


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("/rows/*", "/rows/scored", True),
        ("/r*", "/rows/scored/deep", True),
        ("/{old,rows}/day=?", "/rows/day=1", True),
        ("/rows/*.parquet", "/rows/scored", False),
        ("/rows/*/*", "/rows/scored", False),
        ("/rows/*", "/rows/_scored", False),
        ("/rows/*", "/rows/a/.scored", False),
        ("/rows/[^s]*", "/rows/scored", False),
    ],
)
def test_a_pattern_names_the_paths_whose_files_it_reads(pattern, path, found):
    assert would_read(pattern, path) == found
