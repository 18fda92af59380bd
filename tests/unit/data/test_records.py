"""Descriptions of TFRecord files, without TensorFlow's runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kspark.data import tfrecord
from kspark.files.records import Feature

FIXED = tf.io.FixedLenFeature


def test_features_become_plain_data():
    files = tfrecord(
        [Path("a"), "b/*.tfrecord"],
        {
            "pixels": FIXED((2, 3), tf.float32),
            "digit": FIXED([], tf.int64, default_value=np.int64(7)),
            "words": FIXED(4, tf.string, default_value=["a"] * 4),
        },
        compression="GZIP",
    )
    assert (files.paths, files.compression) == (("a", "b/*.tfrecord"), "GZIP")
    assert files.features == (
        Feature("pixels", (2, 3), "float32"),
        Feature("digit", (), "int64", 7),
        Feature("words", (4,), "string", ["a"] * 4),
    )
    kinds = [feature.kind.simpleString() for feature in files.features]
    assert kinds == ["array<array<float>>", "bigint", "array<string>"]


@pytest.mark.parametrize(
    "feature",
    [
        tf.io.VarLenFeature(tf.float32),
        tf.io.RaggedFeature(tf.float32),
        tf.io.SparseFeature("i", "v", tf.float32, 3),
        tf.io.FixedLenSequenceFeature((), tf.float32, allow_missing=True),
        FIXED((None,), tf.float32),
        "float32",
    ],
)
def test_features_without_a_fixed_length_are_refused(feature):
    with pytest.raises(ValueError, match=r"`features\['a'\]` must be a tf.io.FixedLenFeature"):
        tfrecord("a", {"a": feature})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("a", {}), TypeError, "`features` must be a dictionary"),
        (("a", [1]), TypeError, "`features` must be a dictionary"),
        ((5, {"a": FIXED((), tf.int64)}), TypeError, "`paths` must be a path"),
        (([], {"a": FIXED((), tf.int64)}), TypeError, "`paths` must be a path"),
        ((["a", ""], {"a": FIXED((), tf.int64)}), TypeError, "`paths` must be a path"),
        (("a", {"a": FIXED((), tf.bool)}), ValueError, "dtypes that records have"),
    ],
)
def test_other_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tfrecord(*arguments)
    with pytest.raises(ValueError, match="`compression` must be"):
        tfrecord("a", {"a": FIXED((), tf.int64)}, compression="gz")
