"""Records are those that `tf.io.parse_example` gives, whole or in parts; damage is an error."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kspark.errors import ClusterError
from kspark.files.records import Feature
from kspark.replica.backends.tensorflow_records import read_records

FEATURES = (Feature("a", (2,), "float32"), Feature("b", (), "int64", 9), Feature("c", (), "string"))


def example(number):
    parts = {
        "a": tf.train.Feature(float_list=tf.train.FloatList(value=[number, number + 0.5])),
        "c": tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"n{number}".encode()])),
    }
    if number:
        parts["b"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))
    return tf.train.Example(features=tf.train.Features(feature=parts)).SerializeToString()


@pytest.fixture(params=["", "GZIP", "ZLIB"])
def file(request, tmp_path):
    path = str(tmp_path / "rows.tfrecord")
    with tf.io.TFRecordWriter(path, request.param) as writer:
        for number in range(10):
            writer.write(example(number))
    return path, request.param


@pytest.mark.parametrize("parts", [1, 3, 12])
def test_parts_have_each_record_once_in_order(file, parts):
    path, compression = file
    batches = [
        batch
        for part in range(parts)
        for batch in read_records(path, compression, FEATURES, 4, part, parts)
    ]
    assert max(len(batch["b"]) for batch in batches) <= 4
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in "abc"}
    np.testing.assert_array_equal(found["a"][:, 0], range(10))
    np.testing.assert_array_equal(found["b"], [9, *range(1, 10)])  # the first has the default
    assert found["c"].tolist() == [f"n{number}".encode() for number in range(10)]


def told(path, compression, features=FEATURES):
    """The text of the error with which records are refused."""
    with pytest.raises(ValueError, match=r"rows.tfrecord' must .*Received") as error:
        list(read_records(path, compression, features, 100))
    text = str(error.value)
    assert "{{" not in text and "[Op:" not in text and not text.endswith("name:")
    return text


def test_damage_and_other_compressions_are_told_from_records_without_the_features(file):
    path, compression = file
    assert "have the feature 'z'. Received: a record without it" in told(
        path, compression, (*FEATURES, Feature("z", (), "int64"))
    )
    assert "must have the features ['c'] in the types and shapes described" in told(
        path, compression, (Feature("c", (), "int64"),)
    )
    wrong = "" if compression else "GZIP"
    assert f"was not written with `compression={wrong or None!r}`" in told(path, wrong)
    with open(path, "r+b") as opened:
        opened.seek(-20, 2)
        opened.write(b"damaged")
    assert "Received: a file that is damaged" in told(path, compression)


def test_records_of_another_kind_and_a_missing_file_are_named(tmp_path):
    path = str(tmp_path / "rows.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"no example")
    assert "must be examples with the features ['a', 'b', 'c']" in told(path, "")
    with pytest.raises(ClusterError, match=r"cannot read .*no.tfrecord"):
        list(read_records(path.replace("rows", "no"), "", FEATURES, 4))
