"""Rows of Elephas' RDDs, made on the executors: pairs, labeled points, one-hot labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pyspark.mllib.linalg import Vectors
from pyspark.mllib.regression import LabeledPoint

from kspark.errors import invalid
from kspark.shards import Chunk

Arrays = tuple[np.ndarray, np.ndarray]


def pairs(features: Any, labels: Any) -> Iterator[Any]:
    """Rows `(x, y)`."""
    return zip(features, labels, strict=True)


def points(features: Any, labels: Any) -> Iterator[LabeledPoint]:
    """Rows as `LabeledPoint`."""
    for x, y in zip(features, labels, strict=True):
        vector = np.asarray(x)
        if vector.ndim != 1:
            raise invalid("features", "a matrix, one row per example", f"a row of {vector.shape}")
        yield LabeledPoint(float(np.asarray(y).reshape(())), Vectors.dense(vector))


def largest_of_points(rows: Iterator[LabeledPoint]) -> Iterator[float]:
    """The largest label of one partition, if it has any."""
    found = [p.label for p in rows]
    if found:
        yield max(found)


def stacked_points(rows: Iterator[LabeledPoint]) -> Iterator[Arrays]:
    """One partition's features and labels, if it has any."""
    found = [(p.features.toArray(), p.label) for p in rows]
    if found:
        yield np.stack([x for x, _ in found]), np.array([y for _, y in found])


def point_rows(nb_classes: int | None, rows: Iterator[LabeledPoint]) -> Iterator[Any]:
    """Rows `(x, y)` of one partition of `LabeledPoint`, one-hot if `nb_classes` is given."""
    for point in rows:
        label: Any = point.label
        if nb_classes is not None:
            (label,) = encode_labels(np.array([label]), nb_classes)
        yield point.features.toArray(), label


def chunk_arrays(index: int, chunks: Iterator[Chunk]) -> Iterator[Arrays]:
    """Features and labels of one partition, chunk by chunk."""
    for chunk in chunks:
        yield chunk.x[0], chunk.y[0].astype(np.float64)


def largest_label(index: int, parts: Iterator[Arrays]) -> Iterator[float]:
    """The largest labels of the parts of one partition."""
    for _, labels in parts:
        yield float(labels.max())


def array_rows(nb_classes: int | None, index: int, parts: Iterator[Arrays]) -> Iterator[Any]:
    """Rows `(x, y)` of one partition, one-hot if `nb_classes` is given."""
    for features, labels in parts:
        targets = labels if nb_classes is None else encode_labels(labels, nb_classes)
        yield from zip(features, targets, strict=True)


def encode_labels(labels: np.ndarray, nb_classes: int) -> np.ndarray:
    """One-hot rows of classes."""
    classes = labels.astype(np.int64)
    wrong = (classes != labels) | (classes < 0) | (classes >= nb_classes)
    if wrong.any():
        rule = f"a class, a whole number from 0 to {nb_classes - 1}"
        raise invalid("label", rule, labels[wrong][0])
    return np.eye(nb_classes)[classes]
