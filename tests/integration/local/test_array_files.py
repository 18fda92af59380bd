"""Files of NumPy and TFRecord files on `local[2]`: as the arrays of their rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kspark import SparkModel
from kspark.data import spool, tfrecord

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int64")
FEATURES = {"x": tf.io.FixedLenFeature((4,), tf.float32), "y": tf.io.FixedLenFeature((), tf.int64)}
NAMES = {"features_col": "x", "label_col": "y"}


def classifier(built=True):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(([keras.Input((4,))] if built else []) + layers)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def fitted(*data, built=True, **arguments):
    spark_model = SparkModel(classifier(built), num_workers=2, seed=3, batch_size=10)
    history = spark_model.fit(*data, verbose=0, epochs=2, **arguments)
    return spark_model, history.history


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    np.savez_compressed(folder / "rows.npz", x=X, y=Y)
    for number in range(2):
        with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord"), "GZIP") as writer:
            for x, y in zip(X[number::2][:45], Y[number::2], strict=True):
                writer.write(example(x, y))
    return folder


def example(x, y):
    parts = {
        "x": tf.train.Feature(float_list=tf.train.FloatList(value=x)),
        "y": tf.train.Feature(int64_list=tf.train.Int64List(value=[y])),
    }
    return tf.train.Example(features=tf.train.Features(feature=parts)).SerializeToString()


def test_files_of_numpy_train_as_their_arrays_do(spark, folder):
    x, y, rows = str(folder / "x.npy"), folder / "y.npy", folder / "rows.npz"
    by_arrays, expected = fitted(X, Y, validation_data=(X, Y))
    by_files, found = fitted(x, y, validation_data=(folder / "x.npy", folder / "y.npy"))
    assert found == expected
    _, found = fitted(rows, validation_data=rows, **NAMES)
    assert found == expected
    assert by_files.evaluate(x, str(y), verbose=0) == by_arrays.evaluate(X, Y, verbose=0)
    assert by_files.evaluate(rows, verbose=0, **NAMES) == by_arrays.evaluate(X, Y, verbose=0)
    expected = by_arrays.predict(X, verbose=0)
    np.testing.assert_array_equal(by_files.predict(x, verbose=0), expected)
    np.testing.assert_array_equal(by_files.predict(rows, features_col="x", verbose=0), expected)


def test_records_train_as_their_rows_do(spark, folder):
    """Predictions are in the order of the rows, also if several workers share a file."""
    order = np.concatenate([np.arange(0, 90, 2), np.arange(1, 90, 2)])
    rows = tfrecord(folder / "*.tfrecord", FEATURES, compression="GZIP")
    x, y = X[order], Y[order]
    by_arrays, expected = fitted(x, y, validation_data=(x, y))
    by_records, found = fitted(rows, validation_data=rows, **NAMES)
    assert found == expected
    _, unbuilt = fitted(rows, built=False, **NAMES)
    assert unbuilt["loss"] == found["loss"]
    assert by_records.evaluate(rows, verbose=0, **NAMES) == by_arrays.evaluate(x, y, verbose=0)
    some = by_records.evaluate(rows, verbose=0, steps=6, **NAMES)
    np.testing.assert_allclose(some, by_arrays.evaluate(x[:60], y[:60], verbose=0), rtol=1e-6)
    expected = by_arrays.predict(x, verbose=0)
    for workers in (1, 2, 5):
        by_records.num_workers = workers
        found = by_records.predict(rows, features_col="x", verbose=0)
        np.testing.assert_array_equal(found, expected)


def test_a_damaged_record_is_named_by_its_file(spark, tmp_path):
    path = tmp_path / "damaged.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for x, y in zip(X, Y, strict=True):
            writer.write(example(x, y))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        ValueError, match=r"damaged.tfrecord' must be a whole TFRecord file.*damaged"
    ):
        fitted(tfrecord(path, FEATURES), **NAMES)
    with pytest.raises(ValueError, match="no column 'z', which `features_col` names"):
        fitted(tfrecord(path, FEATURES), features_col="z", label_col="y")


def of_images(batch):
    """Decode files of images; those of other data raise an exception."""
    files = [tf.io.decode_png(file).numpy() for file in batch["png"]]
    return np.stack(files).reshape(len(files), 4) / np.float32(255)


def test_files_of_images_in_records_reach_preprocess(spark, tmp_path):
    """The function is tried with a real image, and gets the bytes, also of spooled rows."""
    pixels = RANDOM.integers(0, 256, (90, 2, 2, 1), dtype=np.uint8)
    path = tmp_path / "images.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, y in zip(pixels, Y, strict=True):
            png = tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])
            label = tf.train.Int64List(value=[y])
            parts = {"png": tf.train.Feature(bytes_list=png)}
            parts["y"] = tf.train.Feature(int64_list=label)
            features = tf.train.Features(feature=parts)
            writer.write(tf.train.Example(features=features).SerializeToString())
    described = {"png": tf.io.FixedLenFeature((), tf.string), "y": FEATURES["y"]}
    rows, names = tfrecord(path, described), {"features_col": "png", "label_col": "y"}
    _, expected = fitted(pixels.reshape(90, 4) / np.float32(255), Y)
    images = tf.data.Dataset.from_tensor_slices([tf.io.encode_png(p).numpy() for p in pixels])
    stream = tf.data.Dataset.zip(images, tf.data.Dataset.from_tensor_slices(Y)).batch(10)
    _, found = fitted(rows, **names, preprocess=of_images)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    _, found = fitted(stream, preprocess=lambda batch: of_images({"png": batch["x"]}))
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    with spool(rows, num_workers=2, **names) as spooled:
        _, found = fitted(spooled, preprocess=of_images, augment=lambda x: x / x.max() * x.max())
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-4)
