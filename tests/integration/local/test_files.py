"""Parquet files in and out: as Keras computes, and as Spark reads."""

from __future__ import annotations

import logging
import os
import platform
from datetime import date, datetime, timedelta, timezone

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F

from kspark import SparkModel
from kspark.adapters.file_paths import condition_of
from kspark.errors import WorkerError
from kspark.files.filters import COMPARISONS
from kspark.files.partitions import NULL
from kspark.files.reading import read_pieces
from kspark.files.table import ParquetFiles
from kspark.files.types import spark_type
from kspark.ml import KerasClassificationModel

COUNT = 300
RNG = np.random.default_rng(0)
X = RNG.normal(size=(COUNT, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
WEIGHTS = RNG.uniform(size=COUNT).astype("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The rows in two files of several row groups each, and what Spark leaves beside them."""
    made = tmp_path_factory.mktemp("rows")
    for i, rows in enumerate([slice(0, 200), slice(200, COUNT)]):
        features = pa.FixedSizeListArray.from_arrays(pa.array(X[rows].reshape(-1)), 3)
        columns = {
            "id": np.arange(COUNT)[rows],
            "features": features,
            **{f"x{j}": X[rows, j] for j in range(3)},
            "label": Y[rows],
            "w": WEIGHTS[rows],
        }
        pq.write_table(pa.table(columns), made / f"{i}.parquet", row_group_size=30)
    (made / "_SUCCESS").touch()
    return made


def classifier():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    return model


def test_a_fit_of_one_worker_equals_keras(spark, folder):
    plain, model = classifier(), classifier()
    arguments = {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0}
    held = (X[200:], Y[200:], WEIGHTS[200:])
    expected = plain.fit(X, Y, sample_weight=WEIGHTS, validation_data=held, **arguments)
    history = SparkModel(model, num_workers=1).fit(
        str(folder / "*.parquet"),
        features_col=["x0", "x1", "x2"],
        weight_col="w",
        validation_data=folder / "1.parquet",
        **arguments,
    )
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5, err_msg=name)
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_model_without_input_shape_is_built_from_the_first_row(spark, folder):
    model = keras.Sequential([keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    spark_model = SparkModel(model, num_workers=2)
    spark_model.fit(folder, filters=[("id", "<", 40)], verbose=0)
    assert model.input_shape == (None, 3)
    loss = spark_model.evaluate([folder / "0.parquet", folder / "1.parquet"], verbose=0)
    np.testing.assert_allclose(loss, model.evaluate(X, Y, verbose=0), rtol=1e-5)
    loss = spark_model.evaluate(folder, filters=pc.field("id") >= 250, verbose=0)
    np.testing.assert_allclose(loss, model.evaluate(X[250:], Y[250:], verbose=0), rtol=1e-5)


@pytest.mark.parametrize("num_workers", [None, 7])
def test_predictions_are_those_of_keras_in_the_order_of_the_rows(
    spark, folder, tmp_path, num_workers
):
    model = classifier()
    spark_model, expected = SparkModel(model, num_workers=num_workers), model.predict(X, verbose=0)
    path, out = f"file://{folder}", str(tmp_path / "scored")
    np.testing.assert_allclose(spark_model.predict(path, verbose=0), expected, rtol=1e-6)
    first = spark_model.predict(path, batch_size=20, steps=2, verbose=0)
    np.testing.assert_allclose(first, expected[:40], rtol=1e-6)
    assert spark_model.predict(path, output=out, output_col="p", verbose=0) == out
    scored = pq.read_table(out)
    assert scored["id"].to_pylist() == list(range(COUNT))
    np.testing.assert_allclose(scored["p"].to_numpy(), expected[:, 0], rtol=1e-6)
    assert len(os.listdir(out)) == (num_workers or 2) + 1
    assert os.listdir(tmp_path) == ["scored"]
    read = spark.read.parquet(out)
    assert read.drop("p").schema == spark.read.parquet(str(folder)).schema
    assert read.where(F.abs("p") <= 1).count() == COUNT


def test_chosen_columns_are_kept_and_an_output_is_replaced_only_if_asked(spark, folder, tmp_path):
    keras.utils.set_random_seed(2)
    x = keras.Input((3,))
    model = keras.Model(x, [keras.layers.Dense(2, name="a")(x), keras.layers.Dense(1, name="b")(x)])
    model.compile("sgd", "mse")
    spark_model, out = SparkModel(model), tmp_path / "scored"
    few = {"features_col": "Features", "output": out, "verbose": 0}
    spark_model.predict(folder, columns=["ID"], filters=[("id", ">", 289)], **few)
    scored, expected = pq.read_table(out), model.predict(X, verbose=0)
    assert scored.schema.names == ["id", "prediction_a", "prediction_b"]
    np.testing.assert_allclose(scored["prediction_a"].to_pylist(), expected[0][290:], rtol=1e-5)
    np.testing.assert_allclose(scored["prediction_b"].to_numpy(), expected[1][290:, 0], rtol=1e-5)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        spark_model.predict(folder, **few)
    assert pq.read_table(out).num_rows == 10
    spark_model.predict(folder, columns=[], filters=[("id", ">", 999)], overwrite=True, **few)
    none = spark.read.parquet(str(out))
    assert none.columns == ["prediction_a", "prediction_b"] and none.count() == 0


def test_rows_that_do_not_fit_leave_nothing(spark, folder, tmp_path):
    rows = pa.table({"features": [[1.0, 2.0, 3.0]] * 50 + [[1.0, None, 3.0]]})
    pq.write_table(rows, tmp_path / "bad.parquet")
    spark_model, bad = SparkModel(classifier()), tmp_path / "bad.parquet"
    with pytest.raises(WorkerError, match="Column 'features' must hold no nulls"):
        spark_model.predict(bad, output=tmp_path / "out", verbose=0)
    assert os.listdir(tmp_path) == ["bad.parquet"]
    with pytest.raises(ValueError, match="no nulls"):
        spark_model.fit(bad, label_col="features", verbose=0)


@pytest.mark.parametrize("work", ["fit", "predict", "score"])
def test_a_worker_that_does_not_find_a_file_is_named(spark, folder, tmp_path, monkeypatch, work):
    """The file disappears when the driver has read its footer."""
    path = tmp_path / "a.parquet"
    path.write_bytes((folder / "0.parquet").read_bytes())
    place = "training" if work == "fit" else "inference"
    monkeypatch.setattr(f"kspark.spark_model.{place}.check_cluster_once", lambda *_: path.unlink())
    spark_model = SparkModel(classifier())
    works = {
        "fit": lambda: spark_model.fit(path, verbose=0),
        "predict": lambda: spark_model.predict(path, verbose=0),
        "score": lambda: spark_model.predict(path, output=tmp_path / "out", verbose=0),
    }
    with pytest.raises(WorkerError, match=f"Host {platform.node()} cannot read '{path}'"):
        works[work]()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"features_col": "none"}, ValueError, "There is no column 'none', which `features_col`"),
        ({"columns": ["none"], "output": "o"}, ValueError, "no column 'none', which `columns`"),
        ({"columns": "id", "output": "o"}, ValueError, "`columns` must be None or a list"),
        ({"columns": ["id", "ID"], "output": "o"}, ValueError, "a list of different columns"),
        ({"columns": ["id"]}, ValueError, "`columns` must be left out without `output`"),
        ({"overwrite": True}, ValueError, "`overwrite` must be left out without `output`"),
        ({"output_col": "Label", "output": "o"}, ValueError, "`output_col` must be a name that is"),
        ({"filters": "id > 3"}, ValueError, "`filters` must be None, a list of tuples"),
        ({"filters": [("id", ">", 3)], "steps": 1}, ValueError, "`filters` must be None if only"),
        (
            {"filters": [("id", ">", 3)], "steps": 1, "output": "o"},
            ValueError,
            "`filters` must be None if only",
        ),
        ({"output": "", "overwrite": True}, ValueError, "A path of files must not be empty"),
        ({"output": ".", "overwrite": True}, ValueError, "not hold the current directory"),
        ({"x": ""}, ValueError, "A path of files must not be empty"),
        ({"x": "none.parquet"}, FileNotFoundError, "none.parquet"),
        ({"x": X, "filters": [("id", ">", 3)]}, ValueError, "`filters` must be None unless `x`"),
        ({"x": X, "output": "o"}, ValueError, "`output` must be None unless `x` names Parquet"),
    ],
)
def test_what_does_not_go_together_is_refused(
    spark, folder, tmp_path, monkeypatch, arguments, error, text
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=text):
        SparkModel(classifier()).predict(**{"x": folder, "verbose": 0, **arguments})
    assert os.listdir(tmp_path) == []


def test_an_output_does_not_replace_the_rows_that_it_is_made_of(spark, folder):
    spark_model = SparkModel(classifier())
    with pytest.raises(ValueError, match="`output` must be a folder that does not hold files of"):
        spark_model.predict(folder / "0.parquet", output=folder, overwrite=True, verbose=0)
    with pytest.raises(ValueError, match="`output` must be a folder outside of .*, in `x`. Rec"):
        spark_model.predict(folder, output=folder / "scored", verbose=0)
    with pytest.raises(ValueError, match="`output` must be a folder that the pattern .*does not n"):
        spark_model.predict(folder / "*", output=folder / "scored", verbose=0)
    with pytest.raises(ValueError, match="`output` must be a folder that is no partition of"):
        spark_model.predict(folder / "0.parquet", output=folder / "day=2", verbose=0)
    assert len(os.listdir(folder)) == 3
    spark_model.predict(folder / "*.parquet", output=folder / "_scored", verbose=0)
    spark_model.predict(folder, output=folder / "_scored", overwrite=True, verbose=0)


def test_labels_and_types_are_checked_before_a_job(spark, folder, tmp_path):
    spark_model = SparkModel(classifier())
    with pytest.raises(ValueError, match="`y` must be None when x names files"):
        spark_model.fit(folder, Y)
    with pytest.raises(ValueError, match="`label_col` must be the column"):
        spark_model.fit(folder, label_col=None)
    pq.write_table(
        pa.table({"features": X.tolist(), "label": ["a"] * COUNT}), tmp_path / "a.parquet"
    )
    with pytest.raises(ValueError, match="In `validation_data`.*text in column 'label'"):
        spark_model.fit(folder, validation_data=tmp_path / "a.parquet")


def types(spark, odd="INT96"):
    """A row of every type that Spark writes, with dates that nanoseconds do not hold."""
    spark.conf.set("spark.sql.parquet.outputTimestampType", odd)
    return spark.sql("""
        select id, array(double(id), 1.5d, 2d) features, timestamp'9999-12-30 23:59:59.123456' far,
        timestamp'0001-01-02 00:00:01' early, timestamp_ntz'1500-01-01 00:00:00' ntz,
        date'0001-01-03' first, date'9999-12-31' last, 1.23bd dec,
        cast(1.5 as decimal(38, 18)) wide,
        cast('abc' as binary) bin, array(1, null) nulls, map('a', 1, 'b', null) mapped,
        named_struct('a', 1, 'b', timestamp'2024-01-02 03:04:05') st,
        array(named_struct('t', timestamp'1200-01-02 03:04:05')) deep,
        map('x', timestamp'2024-01-02 03:04:05') times, tinyint(id) tiny, smallint(id) small,
        float(id) single, true yes, interval '1' year years, interval '1 02:03:04' day to second s,
        if(id = 1, null, 'x') text, double('nan') nan, array(array(1, 2), array()) nested
        from range(3)""")


def as_text(frame):
    """Rows as text: Python has no dates that Spark has."""
    return sorted(row[0] for row in frame.selectExpr("cast(struct(*) as string)").collect())


def test_filters_that_leave_no_rows_give_predictions_of_no_rows_and_are_the_reason(spark, folder):
    spark_model, none = SparkModel(classifier()), {"filters": [("id", ">", COUNT)], "verbose": 0}
    found = spark_model.predict(folder, **none)
    assert found.shape == (0, 1) and found.dtype == spark_model.predict(X[:1], verbose=0).dtype
    for call in (spark_model.fit, spark_model.evaluate):
        with pytest.raises(ValueError, match="`filters` must be conditions that at least one row"):
            call(folder, **none)


@pytest.mark.parametrize("times", ["INT96", "TIMESTAMP_MILLIS"])
def test_what_spark_wrote_it_reads_again_beside_the_predictions(spark, tmp_path, times):
    vectors = [Vectors.dense([1.0, 2.0, 3.0]), Vectors.sparse(3, {1: 2.0})]
    frame = spark.createDataFrame(list(enumerate(vectors)), ["id", "vec"])
    zone, legacy = "spark.sql.session.timeZone", "spark.sql.parquet.writeLegacyFormat"
    before = spark.conf.get(zone)
    spark.conf.set(zone, "America/New_York")
    spark.conf.set(legacy, str(times == "INT96").lower())
    try:
        types(spark, times).join(frame, "id", "left").write.parquet(f"{tmp_path}/in")
        SparkModel(classifier()).predict(tmp_path / "in", output=tmp_path / "out", verbose=0)
        rows = spark.read.parquet(f"{tmp_path}/in")
        scored = spark.read.parquet(f"{tmp_path}/out").drop("prediction")
        assert scored.schema == rows.schema
        assert as_text(scored) == as_text(rows)
    finally:
        spark.conf.set(zone, before)
        spark.conf.unset(legacy)
        spark.conf.unset("spark.sql.parquet.outputTimestampType")
    found = SparkModel(classifier()).predict(
        tmp_path / "in", features_col="vec", filters=[("id", "<", 2)], verbose=0
    )
    expected = classifier().predict(np.stack([v.toArray() for v in vectors]), verbose=0)
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-6)


def test_what_pyarrow_wrote_spark_reads_again_beside_the_predictions(spark, tmp_path):
    n = 3
    columns = {
        "features": X[:n].tolist(),
        "u8": pa.array(range(n), pa.uint8()),
        "u64": pa.array([2**64 - 1] * n, pa.uint64()),
        "large": pa.array(["a"] * n, pa.large_string()),
        "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
        "duration": pa.array([5] * n, pa.duration("us")),
        "fixed": pa.FixedSizeListArray.from_arrays(pa.array(X[:n].reshape(-1)), 3),
        "null": pa.nulls(n),
        "ms": pa.array([0] * n, pa.timestamp("ms")),
        "zoned": pa.array([0] * n, pa.timestamp("us", tz="Europe/Berlin")),
        "bytes": pa.array([b"abc"] * n, pa.binary(3)),
        "nans": [[float("nan"), None]] * n,
    }
    path = f"{tmp_path}/in.parquet"
    pq.write_table(pa.table(columns), path, use_compliant_nested_type=False)
    SparkModel(classifier()).predict(path, output=tmp_path / "out", verbose=0)
    rows = spark.read.parquet(path)
    scored = spark.read.parquet(f"{tmp_path}/out").drop("prediction")
    assert scored.schema == rows.schema and as_text(scored) == as_text(rows)


PARTITIONS = {
    "i": ("1", "02"), "plus": ("+5", "-7"), "long": ("1", "3000000000"), "dec": ("1", "9" * 20),
    "exp": ("1e5", "2"), "mixed": ("1e5", "1.5"), "double": ("1.5", "2"),
    "wide": ("1.5", "3000000000"), "suffix": ("1.5f", "1d"), "nan": ("NaN", "-Infinity"),
    "inf": ("inf", "1"), "day": ("2024-01-02", "1582-10-01"), "short": ("2024-1-2", "2024-01-02"),
    "wrong": ("2024-02-30", "2024-01-02"), "days": ("2024-01-02", "5"),
    "time": ("2024-01-02 03%3A04%3A05", "2024-01-02 03%3A04%3A05.5"),
    "times": ("2024-01-02", "2024-01-02 03%3A04%3A05"), "none": (NULL, "5"),
    "text": (NULL, "a b%2Fc"), "bool": ("true", "false"), "space": (" 1.5", "2"),
    "dot": ("1.", ".5"), "hex": ("0x10", "1"), "under": ("1_000", "1"), "38": ("1" * 38, "1"),
    "39": ("1" * 39, "1"), "a%3Db": ("1", "2"), "negative": ("-0.0", "0"), "37": ("1e37", "1"),
    "400": ("1e400", "1"), "year": ("2024", "2024-01"),
}  # fmt: skip
"""Names of folders, in two files: each column is one case."""


def test_partition_columns_have_sparks_types_and_values(spark, tmp_path):
    for row in (0, 1):
        path = tmp_path.joinpath(*(f"{name}={v[row]}" for name, v in PARTITIONS.items()))
        path.mkdir(parents=True)
        pq.write_table(pa.table({"row": [row]}), path / "x.parquet")
    frame = spark.read.parquet(str(tmp_path)).orderBy("row")
    files = ParquetFiles.open([str(tmp_path)], zone=spark.conf.get("spark.sql.session.timeZone"))
    assert files.schema.names == frame.columns
    assert {f.name: spark_type(f.type) for f in files.schema} == {
        f.name: f.dataType for f in frame.schema
    }
    values = sorted((file.values for file in files.files), key=lambda values: values["i"])
    expected = frame.toArrow().to_pylist()
    for found, row in zip(values, expected, strict=True):
        assert {k: str(v) for k, v in found.items()} == {k: str(row[k]) for k in found}


def test_partition_columns_are_features_labels_and_columns_to_keep(spark, folder, tmp_path):
    rows = spark.read.parquet(str(folder)).withColumn("part", F.col("id") % 2)
    rows.coalesce(1).write.partitionBy("part").parquet(f"{tmp_path}/in")
    model = classifier()
    spark_model, path = SparkModel(model), f"{tmp_path}/in"
    names = ["x0", "part", "x2"]
    spark_model.fit(path, features_col=names, label_col="part", verbose=0)
    spark_model.predict(path, features_col=names, output=f"{tmp_path}/out", verbose=0)
    scored = pq.read_table(f"{tmp_path}/out")
    part = scored["part"].to_numpy()
    assert part.tolist() == [0] * 150 + [1] * 150 and part.dtype == "int32"
    ids = scored["id"].to_numpy()
    x = np.stack([X[ids, 0], part, X[ids, 2]], axis=1)
    expected = model.predict(x, verbose=0)[:, 0]
    np.testing.assert_allclose(scored["prediction"].to_numpy(), expected, rtol=1e-5)


BERLIN = timezone(timedelta(hours=2))
SOME_ROWS = [
    ("x", sign, value) for sign in COMPARISONS for value in (1.5, float("nan"), float("inf"))
] + [
    *(("x", "in", [1.5, float("nan")]), ("x", "not in", [float("nan")]), ("x", "in", [None, 1.5])),
    *(("n", "not in", [1, 2]), ("n", "not in", [1, None]), ("n", "!=", 1), ("N", "in", [1])),
    *(("t", sign, datetime(2024, 6, 1, 12)) for sign in COMPARISONS),
    *(("t", "=", "2024-06-01 12:00:00"), ("t", ">", "2024-06-01"), ("t", ">", date(2024, 6, 1))),
    *(("t", "=", datetime(2024, 6, 1, 18, tzinfo=BERLIN)), ("t", "in", ["2024-06-01 12:00:00"])),
    *(("ntz", "=", datetime(2024, 6, 1, 12)), ("ntz", "not in", ["2024-06-01 12:00:00"])),
    *(("ntz", "=", datetime(2024, 6, 1, 18, tzinfo=BERLIN)), ("ntz", "<=", "2024-06-01")),
]  # fmt: skip


@pytest.mark.parametrize("times", ["INT96", "TIMESTAMP_MICROS", "TIMESTAMP_MILLIS"])
def test_filters_leave_the_rows_that_spark_leaves(spark, tmp_path, times):
    zone, kind = "spark.sql.session.timeZone", "spark.sql.parquet.outputTimestampType"
    before = spark.conf.get(zone)
    spark.conf.set(zone, "America/New_York")
    spark.conf.set(kind, times)
    try:
        spark.sql("""
            select int(id) id, array(double('nan'), null, 1.5d, 2d, -1d)[id] x,
            array(1, null, 2, 3, 4)[id] n,
            array(timestamp'2024-06-01 12:00:00', null, timestamp'2024-06-01 00:00:00',
            timestamp'2024-06-01 08:00:00', timestamp'2024-06-01 16:00:00')[id] t,
            cast(array(timestamp_ntz'2024-06-01 12:00:00', null, timestamp_ntz'2024-05-01 00:00:00',
            timestamp_ntz'2024-06-01 08:00:00', timestamp_ntz'2024-06-01 16:00:00')[id]
            as timestamp_ntz) ntz from range(5)""").coalesce(1).write.parquet(f"{tmp_path}/in")
        rows = spark.read.parquet(f"{tmp_path}/in")
        conditions = [condition_of([one]).alias(str(i)) for i, one in enumerate(SOME_ROWS)]
        marks = rows.orderBy("id").select(*conditions).collect()
        for number, one in enumerate(SOME_ROWS):
            files = ParquetFiles.open([f"{tmp_path}/in"], [one], zone="America/New_York")
            selection = files.selection([files.column("id")])
            (pieces,) = files.split(1)
            found = [i for b in read_pieces(pieces, selection) for i in b.column(0).to_pylist()]
            assert found == [i for i, row in enumerate(marks) if row[number]], one
    finally:
        spark.conf.set(zone, before)
        spark.conf.unset(kind)


def test_a_fitted_stage_adds_the_columns_of_transform_to_files(spark, folder, tmp_path, capsys):
    fitted = KerasClassificationModel(classifier(), inferenceBatchSize=16)
    few = {"columns": ["id"], "filters": [("id", "<", 50)]}
    fitted.transformFiles(folder, tmp_path / "out", verbose=2, **few)
    assert "examples/s" in capsys.readouterr().out
    rows = spark.read.parquet(str(folder)).where("id < 50").select("id", "features")
    found = spark.read.parquet(f"{tmp_path}/out").orderBy("id")
    expected = fitted.transform(rows).drop("features").orderBy("id")
    assert found.schema == expected.schema
    assert found.collect() == expected.collect()
    with pytest.raises(ValueError, match="`predictionCol` must be a name that is not among"):
        fitted.setParams(predictionCol="label").transformFiles(folder, tmp_path / "other")
    taken = fitted.copy().setParams(predictionCol="p", probabilityCol="label")
    with pytest.raises(ValueError, match="`probabilityCol` must be a name that is not among"):
        taken.transformFiles(folder, tmp_path / "other")
    with pytest.raises(TypeError, match="`path` must be a path of Parquet files"):
        fitted.transformFiles(rows, tmp_path / "other")
    with pytest.raises(ValueError, match="`output` must be the path of a folder"):
        fitted.transformFiles(folder, None)
    fitted.setParams(predictionCol="", probabilityCol="", rawPredictionCol="")
    with pytest.raises(ValueError, match="`predictionCol` must be the name of a column"):
        fitted.transformFiles(folder, tmp_path / "other")


def test_a_path_that_only_hadoop_reaches_is_read_and_written_by_spark(
    spark, folder, tmp_path, caplog
):
    settings = {
        "fs.demo.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
        "fs.viewfs.mounttable.kspark-files.link./rows": folder.as_uri(),
        "fs.viewfs.mounttable.kspark-files.link./out": tmp_path.as_uri(),
    }
    for key, value in settings.items():
        spark.conf.set(key, value)
    model = classifier()
    spark_model, path = SparkModel(model, num_workers=1), "demo://kspark-files/rows/*.parquet"
    expected = model.predict(X[250:], verbose=0)
    with caplog.at_level(logging.WARNING, "kspark"):
        found = spark_model.predict(path, filters=[("id", ">=", 250)], verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        spark_model.evaluate(path, filters=[[("id", "in", [1, 2])], [("id", "==", 9)]], verbose=0)
        for i, x in enumerate([path, folder]):
            spark_model.predict(
                x, filters=[("id", ">=", 250)], columns=["id"], verbose=0,
                output=f"demo://kspark-files/out/{i}",
            )  # fmt: skip
            scored = pq.read_table(tmp_path / str(i)).sort_by("id")
            assert scored.schema.names == ["id", "prediction"]
            np.testing.assert_allclose(scored["prediction"].to_numpy(), expected[:, 0], rtol=1e-6)
    assert caplog.text.count("in place of pyarrow, in an order of the rows of its own") == 4
    with pytest.raises(ValueError, match="`output` must be a folder that does not hold files of"):
        spark_model.predict(path, output="demo://kspark-files/rows", overwrite=True, verbose=0)
    with pytest.raises(ValueError, match="`filters` must be a list of tuples for a path"):
        spark_model.predict(path, filters=pc.field("id") > 3, verbose=0)
    for key in settings:
        spark.conf.unset(key)
