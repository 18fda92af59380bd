"""The rows of the benchmark, and their arrangement in shards."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

from benchmarks.common import mnist

NUM_TRAIN, NUM_HELD_OUT = 8_000, 1_000
ADULT_CATEGORIES = (1, 3, 5, 6, 7, 8, 9, 13)
ADULT_NUMBERS = (0, 4, 10, 11, 12)

Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""The arrays `x`, `y`, `x_test` and `y_test`."""


def load(dataset: str, folder: Path | None) -> tuple[Rows, str]:
    """Load a data set.

    Args:
        dataset: String, `"mnist"` or `"adult"`.
        folder: Path of the folder with the published files. Without them, another data set
            takes their place.

    Returns:
        The rows, and a description of them.
    """
    features, labels, origin = (adult if dataset == "adult" else images)(folder)
    order = np.random.RandomState(0).permutation(len(features))
    first, rest = order[:NUM_TRAIN], order[NUM_TRAIN:]
    if len(features) < NUM_TRAIN + NUM_HELD_OUT:
        first, rest = np.split(order, [len(order) * 4 // 5])
    description = (
        f"{origin}: {len(first):,} training rows with {features.shape[1]} features, "
        f"{len(rest):,} test rows"
    )
    return (features[first], labels[first], features[rest], labels[rest]), description


def images(folder: Path | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Features and labels of MNIST, or of synthetic images."""
    published = mnist.published(folder)
    pixels, labels, origin = published or mnist.synthetic()
    return mnist.rows(pixels), labels, "MNIST" if published else origin


def adult(folder: Path | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Features and labels of the census data set Adult, or of scikit-learn's breast cancers."""
    files = sorted(folder.glob("adult.data*")) if folder else []
    if not files:
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True)
        origin = "scikit-learn's breast cancer data, because Adult's file was not found"
        return standard(x), y.astype("int32"), origin
    opened = gzip.open if files[0].suffix == ".gz" else open
    with opened(files[0], "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == 15]
    return (*encoded(rows), "Adult")


def encoded(rows: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of the lines of Adult.

    Numbers are standardized and categories one-hot. An unknown value, "?", is a category, too.
    """
    table = np.array(rows)
    parts = [standard(table[:, ADULT_NUMBERS].astype("float64"))]
    for column in ADULT_CATEGORIES:
        categories, places = np.unique(table[:, column], return_inverse=True)
        parts.append(np.eye(len(categories), dtype="float32")[places])
    return np.concatenate(parts, axis=1), (table[:, 14] == ">50K").astype("int32")


def standard(columns: np.ndarray) -> np.ndarray:
    """The columns with a mean of 0 and a standard deviation of 1."""
    spread = columns.std(axis=0)
    return ((columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype("float32")


def held_out(rows: Rows) -> Rows:
    """The same rows without the test rows. The last training rows take their place."""
    x, y, _, _ = rows
    cut = len(x) - min(NUM_HELD_OUT, len(x) // 5)
    return x[:cut], y[:cut], x[cut:], y[cut:]


def arranged(x: np.ndarray, y: np.ndarray, kind: str, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrange training rows for shards, which are contiguous parts of equal size.

    Args:
        x: Array of features.
        y: Array of labels.
        kind: String, `"mixed"`, `"sorted"`, `"skewed"` or `"spoiled"`.
        shards: Integer, number of shards.
    """
    if kind == "sorted":
        order = np.argsort(y, kind="stable")
        return x[order], y[order]
    if kind == "skewed":
        return skewed(x, y, shards)
    return spoiled(x, y, shards) if kind == "spoiled" else (x, y)


def skewed(x: np.ndarray, y: np.ndarray, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in an order that gives each shard its own classes.

    All shards have as many rows as the smallest one. The other rows are left out.
    """
    groups = np.array_split(np.unique(y), shards)
    places = [np.flatnonzero(np.isin(y, group)) for group in groups]
    size = min(len(rows) for rows in places)
    chosen = np.concatenate([rows[:size] for rows in places])
    return x[chosen], y[chosen]


def spoiled(x: np.ndarray, y: np.ndarray, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose first shard has noise of ten times the usual size, with random labels."""
    random = np.random.default_rng(0)
    size = len(np.array_split(y, shards)[0])
    x, y = x.copy(), y.copy()
    x[:size] = 10 * random.normal(size=x[:size].shape)
    y[:size] = random.integers(0, y.max() + 1, size)
    return x, y
