"""Paths are told from other data, and Spark's form of filters from pyarrow's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from kspark.adapters import Columns
from kspark.adapters.feeds import plan_frame
from kspark.adapters.file_paths import can_fall_back, condition_of, is_files
from kspark.adapters.files import (
    ChosenColumns,
    FileExamples,
    adapt_files,
    column_of,
    first_features,
    read_shards,
)
from kspark.errors import ClusterError
from kspark.files.table import ParquetFiles
from kspark.shards import ArraySpec, InputSpec
from kspark.spark_model.inputs import opened

FEATURES = InputSpec((ArraySpec("x", (2,), "float32"),))
LABELLED = InputSpec(FEATURES.inputs, (ArraySpec("y"),))


@pytest.mark.parametrize(
    "value",
    [
        *("rows", Path("rows"), [Path("a"), "b.parquet"], ("a.parquet", "s3://bucket/rows")),
        *(["a.parq"], ["file:///rows"], ["S3A://bucket/rows", "abfss://c@account/rows"]),
    ],
)
def test_paths_name_files(value):
    assert is_files(value)


@pytest.mark.parametrize(
    "value",
    [
        *(["good film", "bad film"], [], [1.0], None, np.zeros(2), {"x": "a.parquet"}),
        *(["a.parquet", "text"], [Path("a"), 1], ["a/b"], b"rows"),
        *(["http://a.com/login"], ["https://a.com/x.parquet", "s3://b/x"], ["ftp://a", "a://b"]),
    ],
)
def test_text_to_predict_and_other_data_name_none(value):
    assert not is_files(value)


def test_strings_beside_labels_are_text():
    assert not is_files(["a.parquet", "file:///rows"], labelled=True)
    assert is_files("a.parquet", labelled=True) and is_files([Path("a")], labelled=True)


@pytest.mark.parametrize(
    ("names", "warned"), [(["a", "b"], True), (["a", "c"], False), ([], False)]
)
def test_text_that_is_the_name_of_a_file_is_mentioned(tmp_path, monkeypatch, caplog, names, warned):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with caplog.at_level("WARNING", "kspark"):
        assert opened(names) is names
        assert opened(names, y=[0, 1]) is names
    assert ("wrap each in `pathlib.Path`" in caplog.text) == warned


@pytest.fixture
def files(tmp_path):
    columns = {"a": [1.0, 2.0, 3.0], "b": [4, 5, 6], "y": [0, 1, 0], "t": ["x", "y", "z"]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=2)
    return ParquetFiles.open([str(tmp_path / "rows.parquet")])


def chosen(files, spec, **columns):
    return ChosenColumns.of(files, plan_frame(Columns(**columns), spec))


def chunks(files, spec, shards, **columns):
    """The chunks of each shard, as a task gets them."""
    given = chosen(files, spec, **columns)
    selection, pieces = files.selection(given.columns), files.split(shards)

    def task(index, chunks):
        yield from chunks

    return [
        list(read_shards(given.plan, selection, pieces, task, index, iter([index])))
        for index in range(shards)
    ]


def test_columns_become_the_arrays_of_a_model(files):
    first, last = chunks(files, LABELLED, 2, features_col=["a", "b"], label_col="Y")
    assert [chunk.num_examples for chunk in (*first, *last)] == [1, 2]
    np.testing.assert_array_equal(last[0].x[0], np.array([[2, 5], [3, 6]], "float32"))
    assert last[0].y[0].tolist() == [1, 0]
    (x,) = first_features(files, plan_frame(Columns(["a", "b"], None, None), FEATURES))
    assert x.tolist() == [[1.0, 4.0]]


def test_no_first_row_has_no_features(files):
    plan = plan_frame(Columns(["a", "b"], None, None), FEATURES)
    assert first_features(files.first(0), plan) == []


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"features_col": "t"}, "Column 't' must hold numbers.*type string"),
        ({"features_col": "c"}, r"There is no column 'c', which `features_col` names.*'a', 'b'"),
        ({"features_col": ["a", "b"], "label_col": "z"}, "'z', which `label_col` names"),
    ],
)
def test_columns_are_checked_by_the_schema(files, columns, text):
    with pytest.raises(ValueError, match=text):
        chosen(files, LABELLED, **{"label_col": "y", **columns})


def test_examples_tell_what_the_footers_do(files):
    given = chosen(files, LABELLED, features_col=["a", "b"], label_col="t")
    examples = FileExamples(None, files, given, 2)
    assert (examples.num_examples, examples.num_partitions, examples.is_single) == (3, 2, False)
    assert examples.text_labels == {"y": "text in column 't'"}
    assert examples.first_rows(2).num_examples == 2
    assert examples.repartition(1).is_single and examples.split(0.5) is None
    numbers = FileExamples(
        None, files, chosen(files, LABELLED, features_col=["a", "b"], label_col="y"), 1
    )
    assert numbers.summary.y[0].shape == () and numbers.text_labels == {}


def test_a_filter_hides_the_number_of_rows(files):
    some = ParquetFiles.open([str(files.files[0].place)], [("y", "=", 0)])
    given = chosen(some, LABELLED, features_col=["a", "b"], label_col="y")
    examples = FileExamples(None, some, given, 1)
    assert examples.num_examples is None
    with pytest.raises(ValueError, match="`filters` must be None if only the first"):
        examples.first_rows(1)


@pytest.mark.parametrize("name", ["y", "sample_weight"])
def test_labels_beside_files_are_refused(files, name):
    given = {"y": None, "sample_weight": None, name: np.zeros(3)}
    with pytest.raises(ValueError, match=f"`{name}` must be None when x names files"):
        adapt_files(None, files, spec=LABELLED, columns=Columns(), **given)


@pytest.mark.parametrize(
    "filters", [5, [], "a > 1", [("a", "~", 1)], [("a", "in", 1)], pc.field("a") > 1]
)
def test_spark_takes_lists_of_tuples_only(filters):
    with pytest.raises(ValueError, match="`filters` must be (.*a list of tuples|conditions with)"):
        condition_of(filters)


def test_filters_name_the_wrong_operator_value_or_column(files, tmp_path):
    path = str(tmp_path / "rows.parquet")
    for wrong, words in (
        (("b", "=>", 3), "one of the operators '=', .*'not in'. Received: .'b', '=>', 3."),
        (("t", "in", "x"), r"a list of values for 'in', such as \['x'\]. Received"),
        (("bb", ">", 3), r"a condition on 'bb'. Did you mean 'b'\? The columns are: \['a', 'b'"),
        (("a", ">", "old"), r"; 'a' has the type double. Received: \('a', '>', 'old'\) \("),
    ):
        with pytest.raises(ValueError, match=f"^`filters` must be conditions .*{words}"):
            ParquetFiles.open([path], [("a", "<", 9.0), wrong])


def test_a_column_that_only_folders_have_comes_with_the_way_to_read_it(tmp_path):
    for day in (1, 2):
        (tmp_path / f"day={day}").mkdir()
        pq.write_table(pa.table({"a": [1.0]}), tmp_path / f"day={day}" / "rows.parquet")
    pattern, words = str(tmp_path / "day=*"), "name the folder that contains the folders `day=..."
    with pytest.raises(ValueError, match=words):
        ParquetFiles.open([pattern], [("day", "=", 1)])
    with pytest.raises(ValueError, match=f"no column 'day', which `features_col`.*{words}"):
        column_of(ParquetFiles.open([pattern]), "day", "features_col")
    assert ParquetFiles.open([str(tmp_path)], [("day", "=", 1)]).num_rows == 1


def test_filters_that_leave_no_rows_are_the_reason(files, tmp_path):
    chosen = ParquetFiles.open([str(tmp_path / "rows.parquet")], [("a", ">", 9)])
    for rows, words in (
        (files, "`x` must be a data set with"),
        (chosen, "`filters` must be .*> 9"),
    ):
        examples = FileExamples(None, rows, None, 1)
        with pytest.raises(ValueError, match=words):
            raise examples.no_rows("x")


class StoreError(Exception):
    """Stands for an error of a package of fsspec, which is no `OSError`."""


@pytest.mark.parametrize(
    ("path", "error", "falls_back"),
    [
        *(("gs://b/x", StoreError(), True), ("gs://b/x", PermissionError(), True)),
        *(("x", StoreError(), False), ("file:///x", PermissionError(), False)),
        *(("gs://b/x", e(), False) for e in (FileNotFoundError, FileExistsError, ValueError)),
    ],
)
def test_spark_tries_what_pyarrow_does_not_reach(path, error, falls_back):
    assert can_fall_back([path], error) == falls_back


def test_a_host_that_does_not_find_a_file_is_named(files):
    given = chosen(files, FEATURES, features_col=["a", "b"])
    pieces, selection = files.split(1), files.selection(given.columns)
    (path,) = [file.place.path for file in files.files]
    Path(path).unlink()
    with pytest.raises(ClusterError, match="Host .* cannot read"):
        list(read_shards(given.plan, selection, pieces, lambda i, c: c, 0, iter([0])))
