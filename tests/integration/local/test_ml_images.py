"""Images on disk, read by Spark's own sources, as tensors of a model."""

import io

import keras
import numpy as np
import pytest
from PIL import Image
from pyspark.errors import PythonException
from pyspark.sql import functions as F

from kspark.ml import KerasModel, image_columns

SIZES = [(4, 6), (4, 6), (8, 5), (3, 3)]


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(7)
    return [random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def with_damage(folder):
    """The folder with one more file, which is no image."""
    damaged = folder / "9.png"
    damaged.write_bytes(b"no picture")
    yield folder
    damaged.unlink()


def read(spark, kind, folder):
    frame = spark.read.format(kind).load(str(folder))
    origin = F.col("image.origin" if kind == "image" else "path")
    return frame.withColumn("id", F.regexp_extract(origin, r"(\d)\.png$", 1).cast("int"))


@pytest.mark.parametrize("kind", ["image", "binaryFile"])
def test_both_image_sources_give_tensors_and_keep_all_columns(spark, folder, pictures, kind):
    frame = read(spark, kind, folder)
    rows = image_columns(frame, size=(4, 6), output_col="pixels")
    assert rows.columns == [*frame.columns, "pixels"]
    assert rows.schema["pixels"].dataType.simpleString() == "array<float>"

    found = {row.id: row for row in rows.collect()}

    kept = {row.id: row for row in frame.collect()}
    assert sorted(found) == [0, 1, 2, 3]
    for i, pixels in enumerate(pictures):
        expected = keras.ops.image.resize(pixels / np.float32(255), (4, 6))
        tensor = np.reshape(found[i].pixels, (4, 6, 3))
        np.testing.assert_allclose(tensor, keras.ops.convert_to_numpy(expected), atol=1e-5)
        assert found[i][:-1] == tuple(kept[i])


def test_a_model_scores_the_image_tensors_of_a_stream(spark, folder, pictures, tmp_path):
    files = spark.readStream.schema(spark.read.format("binaryFile").load(str(folder)).schema)
    stream = files.format("binaryFile").load(str(folder))
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    rows = KerasModel(model).transform(
        image_columns(stream, "content", size=(2, 2), channels="grey")
    )
    query = (
        rows.select("path", "prediction")
        .writeStream.format("memory")
        .queryName("mean_of_pictures")
        .option("checkpointLocation", str(tmp_path))
        .trigger(availableNow=True)
        .start()
    )
    try:
        assert query.awaitTermination(100)
        found = {r.path[-5:]: r.prediction for r in spark.table("mean_of_pictures").collect()}
    finally:
        query.stop()
        spark.catalog.dropTempView("mean_of_pictures")
    expected = keras.ops.image.resize(
        pictures[0] @ np.float32([0.299, 0.587, 0.114])[:, None], (2, 2)
    )
    assert sorted(found) == ["0.png", "1.png", "2.png", "3.png"]
    mean = keras.ops.convert_to_numpy(expected).mean() / 255
    assert found["0.png"] == pytest.approx(mean, abs=0.003)


@pytest.mark.parametrize("kind", ["image", "binaryFile"])
def test_a_damaged_file_raises_an_error_or_is_dropped(spark, with_damage, kind):
    frame = read(spark, kind, with_damage)
    with pytest.raises(PythonException, match="must hold images of 8 bits per channel"):
        image_columns(frame, size=(2, 2)).collect()
    rows = image_columns(frame, size=(2, 2), drop_invalid=True).collect()
    assert sorted(row.id for row in rows) == [0, 1, 2, 3]


def test_arguments_are_checked_before_anything_runs(spark):
    frame = spark.createDataFrame([(b"", 1)], "content binary, number int")
    for changes, text in [
        ({"size": (2,)}, "`size` must be a pair of integers >= 1"),
        ({"size": (2, 0)}, "`size` must be a pair of integers >= 1"),
        ({"size": (2, True)}, "`size` must be a pair of integers >= 1"),
        ({"size": 28}, "`size` must be a pair of integers >= 1"),
        ({"channels": "gray"}, '`channels` must be one of "rgb", "bgr", "grey"'),
        ({"scale": float("nan")}, "`scale` must be a finite number"),
        ({"output_col": "number"}, "`output_col` must be a name that is not among"),
        ({"output_col": ""}, "`output_col` must be the name of a new column"),
        ({"input_col": "picture"}, "`input_col` must be one of the columns"),
    ]:
        with pytest.raises(ValueError, match=text):
            image_columns(frame, **{"size": (2, 2), **changes})
    with pytest.raises(ValueError, match="Received: input_col=None"):
        image_columns(frame.drop("content"), size=(2, 2))
    with pytest.raises(TypeError, match="`input_col` must be a column of images"):
        image_columns(frame, "number", size=(2, 2))


def test_column_names_are_resolved_as_in_spark(spark):
    pixels = np.full((1, 1, 3), 255, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    frame = spark.createDataFrame([(buffer.getvalue(), 1)], "Content binary, Number int")
    for name in (None, "CONTENT"):
        found = image_columns(frame, name, size=(1, 1))
        assert found.columns == ["Content", "Number", "features"]
        assert found.first().features == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="`output_col` must be .*Received: output_col='NUMBER'"):
        image_columns(frame, size=(1, 1), output_col="NUMBER")
    spark.conf.set("spark.sql.caseSensitive", "true")
    try:
        assert image_columns(frame, "Content", size=(1, 1), output_col="NUMBER").first().NUMBER
        for name in (None, "CONTENT"):
            with pytest.raises(ValueError, match="`input_col` must be one of the columns"):
                image_columns(frame, name, size=(1, 1))
    finally:
        spark.conf.unset("spark.sql.caseSensitive")
