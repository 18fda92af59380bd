"""Rows of Elephas' RDDs, created on executors: pairs, labeled points, one-hot labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.mllib.linalg import Vectors

from kspark.adapters.base import CHUNK_BYTES
from kspark.errors import Described, invalid
from kspark.shards import Chunk

if TYPE_CHECKING:
    from pyspark.mllib.regression import LabeledPoint

Arrays = tuple[np.ndarray, np.ndarray]


def pairs(features: Any, labels: Any) -> Iterator[Any]:
    """Return rows `(x, y)`."""
    return zip(features, labels, strict=True)


def points(features: Any, labels: Any) -> Iterator[LabeledPoint]:
    """Yield rows as `LabeledPoint`."""
    from pyspark.mllib.regression import LabeledPoint  # The client of Spark Connect lacks it.

    for x, y in zip(features, labels, strict=True):
        vector = np.asarray(x)
        if vector.ndim != 1:
            raise invalid(
                "features", "a matrix, one row per example", Described(f"a row of {vector.shape}")
            )
        yield LabeledPoint(float(np.asarray(y).reshape(())), Vectors.dense(vector))


def largest_of_points(rows: Iterator[LabeledPoint]) -> Iterator[float]:
    """Yield the largest label of a partition, or nothing for an empty one."""
    found = [p.label for p in rows]
    if found:
        yield max(found)


def stacked_points(rows: Iterator[LabeledPoint]) -> Iterator[Arrays]:
    """Yield the features and labels of a partition, or nothing for an empty one."""
    found = [(p.features.toArray(), p.label) for p in rows]
    if found:
        yield np.stack([x for x, _ in found]), np.array([y for _, y in found])


def point_rows(nb_classes: int | None, rows: Iterator[LabeledPoint]) -> Iterator[Any]:
    """Yield rows `(x, y)` of a partition of `LabeledPoint`, one-hot if `nb_classes` is given."""
    for point in rows:
        label: Any = point.label
        if nb_classes is not None:
            (label,) = encode_labels(np.array([label]), nb_classes)
        yield point.features.toArray(), label


def chunk_arrays(index: int, chunks: Iterator[Chunk]) -> Iterator[Arrays]:
    """Yield the features and labels of a partition, a few rows at a time, as dense arrays."""
    for chunk in chunks:
        for rows in chunk.dense_pieces(CHUNK_BYTES):
            yield rows.x[0], rows.y[0].astype(np.float64)


def largest_label(index: int, parts: Iterator[Arrays]) -> Iterator[float]:
    """Yield the largest label of each part of a partition."""
    for _, labels in parts:
        yield float(labels.max())


def array_rows(nb_classes: int | None, index: int, parts: Iterator[Arrays]) -> Iterator[Any]:
    """Yield rows `(x, y)` of a partition, one-hot if `nb_classes` is given."""
    for features, labels in parts:
        targets = labels if nb_classes is None else encode_labels(labels, nb_classes)
        yield from zip(features, targets, strict=True)


def encode_labels(labels: np.ndarray, nb_classes: int) -> np.ndarray:
    """Encode classes as one-hot rows.

    Raises:
        ValueError: If a label is not a class.
    """
    classes = labels.astype(np.int64)
    wrong = (classes != labels) | (classes < 0) | (classes >= nb_classes)
    if wrong.any():
        rule = f"a class, an integer from 0 to {nb_classes - 1}"
        raise invalid("label", rule, labels[wrong][0])
    return np.eye(nb_classes)[classes]
