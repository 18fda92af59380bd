"""`tfrecord`: TFRecord files as data for `fit`, `evaluate` and `predict`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kspark.errors import Described, invalid, invalid_type
from kspark.files.records import TYPES, Feature, RecordFiles

COMPRESSIONS = ("GZIP", "ZLIB")

FIXED = (
    "tf.io.FixedLenFeature, whose values have one shape in all records. Describe the feature so, "
    "with a `default_value` if records may lack it, or pass "
    "`tf.data.TFRecordDataset(paths).map(parse).padded_batch(32)` in place of the files, which "
    "the driver reads"
)


def tfrecord(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    features: Mapping[str, Any],
    *,
    compression: str | None = None,
) -> RecordFiles:
    """Describe TFRecord files of `tf.train.Example`, for `fit`, `evaluate` and `predict`.

    The workers read the files with TensorFlow. Each reads other records, in the order of the
    files. If there are more workers than files, several workers share a file: each reads it
    to count its records first, so write large files with several workers in several parts.

    Example:

    ```python
    rows = kspark.data.tfrecord(
        "rows/*.tfrecord",
        {
            "pixels": tf.io.FixedLenFeature((784,), tf.float32),
            "digit": tf.io.FixedLenFeature((), tf.int64),
        },
        compression="GZIP",
    )
    spark_model.fit(rows, features_col="pixels", label_col="digit")
    ```

    Args:
        paths: Path of a file, a folder or a pattern such as `"rows/*.tfrecord"`; or a list of
            paths. Each worker must reach them.
        features: Dictionary from the name of a feature to its `tf.io.FixedLenFeature`, as for
            `tf.io.parse_example`. Text is UTF-8.
        compression: String, `"GZIP"` or `"ZLIB"`. Defaults to `None`: the files are not
            compressed.

    Returns:
        `RecordFiles`, to pass as `x` or `validation_data`. `features_col`, `label_col` and
        `weight_col` name its features, as they name the columns of a DataFrame.

    Raises:
        ValueError: If a feature has no fixed length, or an argument is out of range.
        TypeError: If an argument has a wrong type.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    if not isinstance(given, list | tuple) or not given:
        raise invalid_type("paths", "a path, or a list of paths", paths)
    if not all(isinstance(path, str | os.PathLike) and os.fspath(path) for path in given):
        raise invalid_type("paths", "a path, or a list of paths", paths)
    if compression is not None and compression not in COMPRESSIONS:
        raise invalid("compression", f"None or one of {COMPRESSIONS}", compression)
    if not isinstance(features, dict) or not features:
        rule = "a dictionary from names to `tf.io.FixedLenFeature`"
        raise invalid_type("features", rule, features)
    described = tuple(feature_of(name, feature) for name, feature in features.items())
    return RecordFiles(tuple(map(os.fspath, given)), described, compression or "")


def feature_of(name: str, given: Any) -> Feature:
    """Return a feature as plain data. TensorFlow need not be imported.

    Raises:
        ValueError: If it has no fixed length.
    """
    if type(given).__name__ != "FixedLenFeature":
        raise invalid(f"features[{name!r}]", f"a {FIXED}", Described(type(given).__name__))
    shape = [given.shape] if isinstance(given.shape, int) else list(given.shape)
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise invalid(f"features[{name!r}]", f"a {FIXED}", Described(f"the shape {shape}"))
    dtype = getattr(given.dtype, "name", None) or str(given.dtype)
    if dtype not in TYPES:
        rule = f"of one of the dtypes that records have, {list(TYPES)}"
        raise invalid(f"features[{name!r}]", rule, Described(dtype))
    default = given.default_value
    default = None if default is None else np.asarray(default).tolist()
    return Feature(name, tuple(shape), dtype, default)
