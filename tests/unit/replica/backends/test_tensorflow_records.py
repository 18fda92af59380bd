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


def test_damage_and_other_descriptions_name_the_file(file):
    path, compression = file
    with open(path, "r+b") as opened:
        opened.seek(-20, 2)
        opened.write(b"damaged")
    other = (Feature("z", (), "int64"),)
    for features in (FEATURES, other):
        with pytest.raises(
            ValueError, match=r"rows.tfrecord' must be a TFRecord file.*Received"
        ) as e:
            list(read_records(path, compression, features, 100))
        assert "{{" not in str(e.value) and "[Op:" not in str(e.value)


def test_a_wrong_compression_and_a_missing_file_are_named(file):
    path, compression = file
    wrong = "" if compression else "GZIP"
    with pytest.raises(ValueError, match="with the compression"):
        list(read_records(path, wrong, FEATURES, 4))
    with pytest.raises(ClusterError, match=r"cannot read .*no.tfrecord"):
        list(read_records(path.replace("rows", "no"), compression, FEATURES, 4))
