"""Every kind of input gives the same chunks: each row once, in order if the input is ordered."""

from __future__ import annotations

import gc
import glob
import os
import tempfile
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.errors import AnalysisException, PythonException
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.mllib.linalg import Vectors as OldVectors
from pyspark.sql import Row
from pyspark.sql import functions as F

from kspark.adapters import Columns, adapt
from kspark.adapters.arrays import ArrayExamples
from kspark.adapters.dataframe import DataFrameExamples
from kspark.shards import ArraySpec, InputSpec, Shard, ShardHandle, spool

SPEC = InputSpec((ArraySpec("x", (2,), "float32"),), (ArraySpec("y"),))
PAIR = InputSpec(
    (ArraySpec("user", (), "int32"), ArraySpec("words", (2,), "string")),
    (ArraySpec("rating"), ArraySpec("liked")),
)
BARE = InputSpec(SPEC.inputs)
COUNT = 23
X = np.stack([np.arange(COUNT), -np.arange(COUNT)], 1).astype(np.float32)
Y = np.arange(COUNT) * 10


def seen(index, chunks):
    """What a task gets, as plain data."""
    for chunk in chunks:
        yield index, [[a.tolist(), a.dtype.name, list(a.shape[1:])] for a in chunk.arrays]


def columns_of(results, array=0):
    return [value for _, arrays in results for value in arrays[array][0]]


def by_partition(examples):
    found = {}
    for index, arrays in examples.map_chunks(seen).collect():
        found.setdefault(index, []).extend(v for v in arrays[0][0])
    return found


def ids_by_partition(examples):
    return {i: [int(row[0]) for row in rows] for i, rows in by_partition(examples).items()}


@pytest.fixture
def temporary_folders(tmp_path, monkeypatch):
    """Lists the folders of arrays that this test has made, and no others of this machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: glob.glob(os.path.join(tmp_path, "kspark-arrays-*"))


# Arrays


def test_arrays_are_divided_into_contiguous_slices(spark):
    with adapt(spark, X.astype(np.float64), Y, spec=SPEC, num_workers=3) as examples:
        assert (examples.num_examples, examples.num_partitions) == (COUNT, 3)
        results = examples.map_chunks(seen).collect()
    assert columns_of(results) == X.tolist()
    assert columns_of(results, 1) == Y.tolist()
    assert [arrays[0][1:] for _, arrays in results] == [["float32", [2]]] * 3
    assert [arrays[1][1:] for _, arrays in results] == [["int64", []]] * 3
    assert [(i, len(arrays[0][0])) for i, arrays in results] == [(0, 8), (1, 8), (2, 7)]


def test_arrays_may_have_fewer_rows_than_workers(spark):
    with adapt(spark, X[:3], Y[:3], spec=SPEC, num_workers=8) as examples:
        rdd = examples.map_chunks(seen)
        assert rdd.getNumPartitions() == 8
        assert columns_of(rdd.collect()) == X[:3].tolist()
    with adapt(spark, X[:1], Y[:1], spec=SPEC) as examples:
        assert examples.num_partitions == 1


def test_arrays_that_are_sent_as_broadcasts_arrive_unchanged(spark, monkeypatch):
    monkeypatch.setattr("kspark.adapters.arrays.is_local", lambda master: False)
    images = (X * 3).astype(np.uint8)
    with adapt(spark, images, Y, np.ones(COUNT), spec=SPEC, num_workers=3) as examples:
        rdd = examples.map_chunks(seen)
        results = rdd.collect()
        assert columns_of(results) == images.tolist()
        assert columns_of(results, 1) == Y.tolist()
        assert [i for i, _ in results] == [0, 1, 2]
        assert [a[0][1] for _, a in results] == ["float32"] * 3
        assert [a[2][1] for _, a in results] == ["float32"] * 3
        assert rdd.collect() == results
        assert len(examples._broadcasts) == 3
    assert examples._broadcasts == []


def test_close_removes_the_files_of_arrays(spark, temporary_folders):
    before = set(temporary_folders())
    examples = adapt(spark, X, Y, spec=SPEC)
    examples.map_chunks(seen).collect()
    assert len(set(temporary_folders()) - before) == 1
    examples.close()
    examples.close()
    assert set(temporary_folders()) == before
    forgotten = adapt(spark, X, Y, spec=SPEC)
    forgotten.map_chunks(seen)
    del forgotten
    gc.collect()
    assert set(temporary_folders()) == before


def test_arrays_that_cannot_be_cast_fail_on_the_driver(spark, temporary_folders):
    before = set(temporary_folders())
    spec = InputSpec((ArraySpec("x", (), "int32"),))
    examples = adapt(spark, np.array([1, 2, 0.5]), spec=spec, num_workers=3)
    with examples, pytest.raises(ValueError, match="`x` must hold whole .*0.5 in row 2$"):
        examples.map_chunks(seen)
    assert set(temporary_folders()) == before


def test_split_takes_the_last_rows_like_keras(spark):
    train, held_out = adapt(spark, X, Y, spec=SPEC, num_workers=2).split(0.25)
    assert (train.num_examples, held_out.num_examples) == (17, 6)
    with train, held_out:
        assert columns_of(train.map_chunks(seen).collect()) == X[:17].tolist()
        assert columns_of(held_out.map_chunks(seen).collect()) == X[17:].tolist()
    with pytest.raises(ValueError, match="rows to validate, of 23 in all"):
        adapt(spark, X, Y, spec=SPEC).split(0.99)
    assert adapt(spark, spark.sparkContext.parallelize([1]), spec=BARE).split(0.5) is None


def test_several_inputs_with_text_and_sample_weights_arrive_in_order(spark):
    words = np.array([["a", "b"], ["c", "ü"]])
    with adapt(
        spark,
        {"words": words, "user": [7, 8]},
        [[0.5, 1.5], [1, 0]],
        [[1.0, 2.0], [3.0, 4.0]],
        spec=PAIR,
        num_workers=1,
    ) as examples:
        ((_, arrays),) = examples.map_chunks(seen).collect()
    assert [a[0] for a in arrays] == [
        [7, 8], words.tolist(), [0.5, 1.5], [1, 0], [1, 2], [3, 4],
    ]  # fmt: skip
    assert [a[1] for a in arrays] == ["int32", "object", "float32", "int64", "float32", "float32"]


# RDDs


def rdd_of(spark, count=COUNT, partitions=2):
    rows = [(X[i % COUNT] + 0, i) for i in range(count)]
    return spark.sparkContext.parallelize(rows, partitions)


def test_rdd_keeps_its_partitions(spark):
    examples = adapt(spark, rdd_of(spark, partitions=3), spec=SPEC)
    assert (examples.num_examples, examples.num_partitions) == (None, 3)
    results = examples.map_chunks(seen).collect()
    assert columns_of(results, 1) == list(range(COUNT))
    assert columns_of(results) == X.tolist()


def test_an_rdd_is_reduced_to_fewer_partitions_without_a_shuffle(spark):
    examples = adapt(spark, rdd_of(spark, partitions=6), spec=SPEC, num_workers=3)
    assert examples.num_partitions == 3
    found = ids_by_partition(examples)
    assert [i for p in sorted(found) for i in found[p]] == list(range(COUNT))


@pytest.mark.parametrize(("partitions", "workers"), [(1, 3), (2, 3), (5, 4), (3, 2)])
def test_an_rdd_is_repartitioned_evenly(spark, partitions, workers):
    rdd = rdd_of(spark, 400, partitions)
    examples = adapt(spark, rdd, spec=SPEC, num_workers=workers)
    assert examples.num_partitions == workers
    found = examples.map_chunks(seen).collect()
    assert sorted(columns_of(found, 1)) == list(range(400))
    sizes = [0] * workers
    for index, arrays in found:
        sizes[index] += len(arrays[0][0])
    assert max(sizes) - min(sizes) <= 2 * partitions
    assert examples.map_chunks(seen).collect() == found
    assert examples.repartition(partitions).num_partitions == partitions


def test_an_rdd_of_data_frame_rows_is_accepted(spark):
    rdd = spark.createDataFrame([Row(features=Vectors.dense([1, 2]), label=3.0)]).rdd
    ((_, arrays),) = adapt(spark, rdd, spec=SPEC).map_chunks(seen).collect()
    assert [a[0] for a in arrays] == [[[1, 2]], [3]]


def test_labels_beside_an_rdd_or_data_frame_are_refused(spark):
    for x in (rdd_of(spark), spark.range(3)):
        for other in ({"y": Y}, {"sample_weight": Y}):
            with pytest.raises(ValueError, match=f"`{next(iter(other))}` must be None when x is"):
                adapt(spark, x, spec=SPEC, **other)


def test_a_data_frame_without_labels_for_a_model_with_targets_is_refused(spark):
    with pytest.raises(
        ValueError, match=r"`label_col` must be the column.*\['y'\]. Received: .*None"
    ):
        adapt(spark, frame_of(spark), spec=SPEC, columns=Columns(label_col=None))


@pytest.mark.parametrize("labels", [np.array(["a", "b"]), np.array(["a", "b"], object), ["a", "b"]])
def test_text_labels_in_arrays_are_found_before_any_job(spark, labels):
    assert adapt(spark, X[:2], labels, spec=SPEC).text_labels == {"y": "text"}
    assert adapt(spark, X[:2], Y[:2], spec=SPEC).text_labels == {}


def test_text_labels_in_columns_are_found_before_any_job(spark):
    frame = spark.createDataFrame([([1.0, 2.0], "a", ["b"], 1)], ["features", "label", "list", "n"])
    for column, found in [("label", "text in column 'label'"), ("list", "text in column 'list'")]:
        examples = adapt(spark, frame, spec=SPEC, columns=Columns(label_col=column))
        assert examples.text_labels == {"y": found}
    assert adapt(spark, frame, spec=SPEC, columns=Columns(label_col="n")).text_labels == {}


# DataFrames


def frame_of(spark, partitions=2, count=COUNT):
    return spark.range(0, count, 1, partitions).select(
        F.array(F.col("id").cast("float"), (-F.col("id")).cast("float")).alias("features"),
        (F.col("id") * 10).alias("label"),
    )


def test_data_frame_keeps_its_partitions_and_their_order(spark):
    examples = adapt(spark, frame_of(spark, 3), spec=SPEC)
    assert isinstance(examples, DataFrameExamples)
    results = examples.map_chunks(seen).collect()
    assert columns_of(results) == X.tolist()
    assert columns_of(results, 1) == Y.tolist()
    assert {i for i, _ in results} == {0, 1, 2}
    assert examples.num_partitions == 3


@pytest.mark.parametrize(("partitions", "workers"), [(4, 2), (1, 3), (3, 2), (2, 2)])
def test_a_data_frame_is_repartitioned_to_the_number_of_workers(spark, partitions, workers):
    examples = adapt(spark, frame_of(spark, partitions), spec=SPEC, num_workers=workers)
    assert examples.num_partitions == workers
    rdd = examples.map_chunks(seen)
    assert rdd.getNumPartitions() == workers
    results = rdd.collect()
    assert sorted(columns_of(results, 1)) == Y.tolist()
    assert {i for i, _ in results} == set(range(workers))


def test_data_frame_is_read_once(spark):
    reads = spark.sparkContext.accumulator(0)

    def count(batches):
        for batch in batches:
            reads.add(batch.num_rows)
            yield batch

    frame = frame_of(spark).mapInArrow(count, "features array<float>, label bigint")
    examples = adapt(spark, frame.repartition(3), spec=SPEC, num_workers=3)
    assert sorted(columns_of(examples.map_chunks(seen).collect(), 1)) == Y.tolist()
    assert reads.value == COUNT


def test_empty_partitions_of_a_data_frame_are_kept(spark):
    frame = frame_of(spark, 4).where("label >= 150")
    results = adapt(spark, frame, spec=SPEC).map_chunks(counted).collect()
    assert [count for _, count in results] == [0, 0, 2, 6]


def counted(index, chunks):
    yield index, sum(chunk.num_examples for chunk in chunks)


VALUES = [
    ("dense", VectorUDT(), lambda i: Vectors.dense([i, -i])),
    ("sparse", VectorUDT(), lambda i: Vectors.sparse(2, {0: i, 1: -i})),
    (
        "mixed",
        VectorUDT(),
        lambda i: Vectors.sparse(2, {0: i, 1: -i}) if i % 3 else Vectors.dense([i, -i]),
    ),
    ("old", OldVectors.dense([0]).__UDT__, lambda i: OldVectors.dense([i, -i])),
    ("doubles", "array<double>", lambda i: [float(i), float(-i)]),
    ("integers", "array<int>", lambda i: [i, -i]),
    ("nested", "array<array<float>>", lambda i: [[float(i)], [float(-i)]]),
    ("decimals", "array<decimal(6,2)>", lambda i: [Decimal(i), Decimal(-i)]),
]


@pytest.mark.parametrize(("kind", "make"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES])
def test_a_features_column_may_have_any_supported_type(spark, kind, make):
    rows = [(make(i), float(i)) for i in range(10)]
    if isinstance(kind, str):
        frame = spark.createDataFrame(rows, f"features {kind}, label double")
    else:
        frame = spark.createDataFrame(rows, ["features", "label"])
    shape = (2, 1) if "nested" in str(kind) or kind == "array<array<float>>" else (2,)
    spec = InputSpec((ArraySpec("x", shape, "float32"),), SPEC.targets)
    results = adapt(spark, frame, spec=spec).map_chunks(seen).collect()
    expected = X[:10].reshape(10, *shape).tolist()
    assert columns_of(results) == expected
    assert {a[0][1] for _, a in results} == {"float32"}


def test_scalar_columns_are_joined_and_names_may_have_dots_and_spaces(spark):
    frame = spark.createDataFrame(
        [(1, 2.5, True, 0, 0.5), (3, 4.5, False, 1, 1.5)],
        "`a.b` int, `c d` double, flag boolean, label int, w double",
    )
    spec = InputSpec((ArraySpec("x", (3,), "float32"),), SPEC.targets)
    columns = Columns(["a.b", "c d", "flag"], weight_col="w")
    results = adapt(spark, frame, spec=spec, columns=columns).map_chunks(seen).collect()
    assert sorted(columns_of(results)) == [[1, 2.5, 1], [3, 4.5, 0]]
    assert sorted(columns_of(results, 2)) == [0.5, 1.5]


@pytest.mark.parametrize("name", ["row.features", "Row.FEATURES"])
def test_fields_of_structs_can_be_features(spark, name):
    frame = frame_of(spark).select(F.struct("features").alias("row"), "label")
    results = adapt(spark, frame, spec=SPEC, columns=Columns(name)).map_chunks(seen)
    assert columns_of(results.collect()) == X.tolist()


def test_struct_field_names_follow_the_case_sensitivity_of_spark(spark):
    frame = frame_of(spark).select(F.struct("features").alias("row"), "label")
    spark.conf.set("spark.sql.caseSensitive", "true")
    try:
        with pytest.raises(ValueError, match="no column 'Row.features'"):
            adapt(spark, frame, spec=SPEC, columns=Columns("Row.features"))
    finally:
        spark.conf.unset("spark.sql.caseSensitive")


def test_each_input_may_have_a_column_of_its_own(spark):
    frame = spark.createDataFrame(
        [(2**31 - 1, ["a", "b"], 0.5, 1), (8, ["c", "ü"], 1.5, 0)],
        "u long, w array<string>, r double, l int",
    ).coalesce(1)
    columns = Columns({"words": "w", "user": "u"}, ["r", "l"])
    ((_, arrays),) = adapt(spark, frame, spec=PAIR, columns=columns).map_chunks(seen).collect()
    assert [a[0] for a in arrays] == [
        [2**31 - 1, 8], [["a", "b"], ["c", "ü"]], [0.5, 1.5], [1, 0],
    ]  # fmt: skip
    assert arrays[0][1] == "int32"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            Columns("nothing"),
            "'nothing', which `features_col` names. The columns are: .'features', 'label'",
        ),
        (Columns("features.x"), "Column 'features.x'|features.x"),
        (Columns("day"), "Column 'day' must hold numbers, vectors.*Received: type date"),
        (Columns("raw"), "Column 'raw' must hold .*Received: type binary"),
        (Columns("days"), r"Column 'days' must hold .*Received: type array<date>"),
        (Columns("map"), "Column 'map' must hold .*Received: type map"),
        (Columns(label_col="day"), "Column 'day' must hold"),
        (Columns(weight_col="nothing"), "no column 'nothing'"),
    ],
)
def test_columns_are_checked_before_any_job(spark, columns, words):
    frame = frame_of(spark).select(
        "features",
        "label",
        F.current_date().alias("day"),
        F.array(F.current_date()).alias("days"),
        F.lit(b"x").alias("raw"),
        F.create_map(F.lit("a"), F.lit(1)).alias("map"),
    )
    with pytest.raises((ValueError, AnalysisException), match=words):
        adapt(spark, frame, spec=SPEC, columns=columns)


def test_streams_are_refused(spark):
    stream = spark.readStream.format("rate").load()
    with pytest.raises(ValueError, match="not streaming"):
        adapt(spark, stream, spec=SPEC, columns=Columns("value", "value"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            [1.0],
            "Column 'features' must hold examples of one length, 2 as in row 0. "
            "Received: length 1 in row 3 of partition 1",
        ),
        (None, "Column 'features' must hold no nulls. Received: null in row 3 of partition 1"),
        (
            [1.0, None],
            "Column 'features' must hold no nulls. Received: null in row 3 of partition 1",
        ),
    ],
)
def test_an_invalid_row_is_named_in_the_error(spark, value, words):
    rows = [([1.0, 2.0], 0)] * 7 + [(value, 0)]
    frame = spark.createDataFrame(
        spark.sparkContext.parallelize(rows, 2), "features array<double>, label int"
    )
    with pytest.raises(PythonException, match=words):
        adapt(spark, frame, spec=SPEC).map_chunks(seen).collect()


# What tasks leave over


def only_first(index, chunks):
    yield index, next(chunks).num_examples, os.getpid()


@pytest.mark.parametrize("kind", ["rdd", "frame", "arrays"])
def test_python_workers_are_reused_after_a_task_that_stops_reading_early(spark, kind):
    x = {
        "rdd": rdd_of(spark, 20_000),
        "frame": frame_of(spark, 2, 20_000),
        "arrays": np.tile(X, (900, 1)),
    }
    y = np.zeros(COUNT * 900) if kind == "arrays" else None
    with adapt(spark, x[kind], y, spec=SPEC, num_workers=2) as examples:
        results = [examples.map_chunks(only_first).collect() for _ in range(8)]
    # Earlier tests may have left more than one worker per slot; a new one for each task is 16.
    assert len({pid for result in results for _, _, pid in result}) <= 8


def test_results_of_a_data_frame_need_no_second_python_worker(spark):
    results = adapt(spark, frame_of(spark), spec=SPEC).map_chunks(counted)
    trained = results.persist().mapPartitionsWithIndex(doubled)
    # mapInArrow is no PythonRDD; whoever uses the results is the only one.
    assert trained.toDebugString().count(b"PythonRDD[") == 1
    assert trained.collect() == [(0, 11), (1, 12)]
    assert results.collect() == [(0, 11), (1, 12)]
    results.unpersist()


def doubled(index, results):
    for where, count in results:
        assert where == index
        yield where, count


# pandas and pyarrow


def test_pandas_columns_are_selected_by_name(spark):
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "label": [1, 0], "v": [[1, 2], [3, 4]]})
    for columns, expected in (
        (Columns(["a", "b"]), [[1, 0.5], [2, 1.5]]),
        (Columns("v"), [[1, 2], [3, 4]]),
    ):
        with adapt(spark, frame, spec=SPEC, columns=columns) as examples:
            results = examples.map_chunks(seen).collect()
        assert columns_of(results) == expected
        assert columns_of(results, 1) == [1, 0]
    with pytest.raises(ValueError, match="no column 'features'"):
        adapt(spark, frame, spec=SPEC)


def test_a_pandas_frame_with_separate_labels_is_a_matrix(spark):
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan]})
    with adapt(spark, frame, pd.Series([3, 4]), spec=SPEC) as examples:
        results = examples.map_chunks(seen).collect()
    assert columns_of(results, 1) == [3, 4]
    assert columns_of(results)[0] == [1, 0.5]
    assert np.isnan(columns_of(results)[1][1])
    with adapt(spark, frame, spec=BARE) as examples:
        assert len(columns_of(examples.map_chunks(seen).collect())) == 2


def test_a_pyarrow_table_is_accepted(spark):
    halves = [{"v": [[1.0, 2.0]], "label": [5]}, {"v": [[3.0, 4.0]], "label": [6]}]
    table = pa.concat_tables([pa.table(half) for half in halves])
    with adapt(spark, table, spec=SPEC, columns=Columns("v", weight_col="label")) as examples:
        assert isinstance(examples, ArrayExamples)
        results = examples.map_chunks(seen).collect()
    assert [columns_of(results, i) for i in range(3)] == [[[1, 2], [3, 4]], [5, 6], [5, 6]]
    with adapt(spark, table, [7, 8], spec=SPEC, columns=Columns("v")) as examples:
        assert columns_of(examples.map_chunks(seen).collect(), 1) == [7, 8]


# All the way to shards


def to_shards(index, chunks):
    yield spool(chunks, index, "adapters-test").to_json()


def test_shards_of_a_data_frame_hold_its_rows_in_order(spark):
    rdd = adapt(spark, frame_of(spark, 3), spec=SPEC).map_chunks(to_shards)
    handles = [ShardHandle.from_json(document) for document in rdd.collect()]
    shards = [Shard.open(handle) for handle in handles]
    assert [h.index for h in handles] == [0, 1, 2]
    assert [s.minimum for h in handles for s in h.stats] == [0, 70, 150]
    rows = np.concatenate([shard.read().x[0] for shard in shards])
    assert rows.tolist() == X.tolist()
    for shard in shards:
        shard.delete()
    assert not any(os.path.exists(h.path) for h in handles)
