"""Read the records of TFRecord files with TensorFlow, whichever backend the model has."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from kspark.errors import ClusterError
from kspark.files.records import Feature


def read_records(
    path: str,
    compression: str,
    features: Sequence[Feature],
    size: int,
    part: int = 0,
    parts: int = 1,
    threads: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Read the records of one file, or of one of several equal parts of it.

    Args:
        path: String, as TensorFlow spells it.
        compression: String, `""`, `"GZIP"` or `"ZLIB"`.
        features: Sequence of `Feature` to return.
        size: Integer, the most records of a batch.
        part: Integer, the part of the file. Defaults to `0`.
        parts: Integer, the number of parts. Defaults to `1`.
        threads: Integer, threads that TensorFlow may use. Defaults to `1`.

    Yields:
        Dictionaries from the name of a feature to its values, one per record. Text is bytes.

    Raises:
        ValueError: If a record is damaged, or does not have the features.
        ClusterError: If TensorFlow cannot open the file.
    """
    with contextlib.suppress(RuntimeError):  # TensorFlow may have started: it keeps its threads.
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    description = {
        feature.name: tf.io.FixedLenFeature(feature.shape, feature.dtype, feature.default)
        for feature in features
    }
    try:
        for batch in part_of(path, compression, part, parts).batch(size):
            parsed = tf.io.parse_example(batch, description)
            yield {name: tensor.numpy() for name, tensor in parsed.items()}
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"{path!r} must be a whole TFRecord file. Received: a file that is damaged, or was not "
            f"written with `compression={compression or None!r}`: {told(error)}"
        ) from error
    except tf.errors.InvalidArgumentError as error:
        raise unlike_described(path, features, told(error)) from error
    except tf.errors.OpError as error:
        raise ClusterError(
            f"TensorFlow cannot read {path!r}: {told(error)}. Each worker must reach the path: "
            "use a file system that all hosts share"
        ) from error


def unlike_described(path: str, features: Sequence[Feature], text: str) -> ValueError:
    """Return the error for a record that `tf.io.parse_example` does not take, by its text."""
    names = [feature.name for feature in features]
    found = next((name for name in names if f"Feature: {name} " in f"{text} "), None)
    if found is not None and "could not be found" in text:
        rule, received = f"have the feature {found!r}", "a record without it"
    elif found is not None or "Key: " in text:
        rule, received = f"have the features {names} in the types and shapes described", text
    else:
        rule, received = f"be examples with the features {names}", text
    return ValueError(f"The records of {path!r} must {rule}. Received: {received}")


def told(error: tf.errors.OpError) -> str:
    """Return the text of an error without the names of nodes and operations of TensorFlow."""
    noise = r"\{\{[^}]*\}\} ?|\[Op:\w+\]|Name: <unknown>, |\bname: *$"
    text = re.sub(noise, "", str(error.message).strip())
    return text.strip().rstrip(".")


def part_of(path: str, compression: str, part: int, parts: int) -> tf.data.Dataset:
    """Return the serialized records of a file, or of one of several equal parts of it.

    A file does not tell how many records it has, so they are counted first if there are parts.
    """
    records = tf.data.TFRecordDataset(path, compression_type=compression)
    if parts == 1:
        return records
    total = int(records.reduce(np.int64(0), lambda count, _: count + 1).numpy())
    start, stop = total * part // parts, total * (part + 1) // parts
    return records.skip(start).take(stop - start)
