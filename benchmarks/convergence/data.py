"""Rows to learn from: 8,000 of MNIST or of the census, and what can be wrong with a shard."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import mnist
import numpy as np

NUM_TRAIN, NUM_HELD_OUT = 8_000, 1_000
ADULT_WORDS = (1, 3, 5, 6, 7, 8, 9, 13)
ADULT_NUMBERS = (0, 4, 10, 11, 12)

Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""`x`, `y`, `x_test`, `y_test`."""


def load(dataset: str, folder: Path) -> tuple[Rows, str]:
    """Rows that train and rows that test, and what they are."""
    features, labels, origin = (adult if dataset == "adult" else images)(folder)
    order = np.random.RandomState(0).permutation(len(features))
    first, rest = order[:NUM_TRAIN], order[NUM_TRAIN:]
    if len(features) < NUM_TRAIN + NUM_HELD_OUT:
        first, rest = np.split(order, [len(order) * 4 // 5])
    told = f"{origin}: {len(first):,} rows of {features.shape[1]} train, {len(rest):,} test"
    return (features[first], labels[first], features[rest], labels[rest]), told


def images(folder: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """MNIST, or what `mnist.py` makes in its place."""
    found = mnist.published(folder)
    pixels, labels, origin = found or mnist.synthetic()
    return mnist.rows(pixels), labels, "MNIST" if found else origin


def adult(folder: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """UCI's census data, one-hot and standardized; else scikit-learn's tumours."""
    files = sorted(folder.glob("adult.data*"))
    if not files:
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True)
        return (
            standard(x),
            y.astype("int32"),
            "scikit-learn's tumours, for lack of files",
        )
    opened = gzip.open if files[0].suffix == ".gz" else open
    with opened(files[0], "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == 15]
    return (*encoded(rows), "Adult")


def encoded(rows: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of lines of the census; "?" is a word like others."""
    table = np.array(rows)
    parts = [standard(table[:, ADULT_NUMBERS].astype("float64"))]
    for column in ADULT_WORDS:
        words, places = np.unique(table[:, column], return_inverse=True)
        parts.append(np.eye(len(words), dtype="float32")[places])
    return np.concatenate(parts, axis=1), (table[:, 14] == ">50K").astype("int32")


def standard(columns: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1."""
    spread = columns.std(axis=0)
    return ((columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype("float32")


def held_out(rows: Rows) -> Rows:
    """The last training rows take the place of the test rows, which stay unseen."""
    x, y, _, _ = rows
    cut = len(x) - min(NUM_HELD_OUT, len(x) // 5)
    return x[:cut], y[:cut], x[cut:], y[cut:]


def arranged(x: np.ndarray, y: np.ndarray, kind: str, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Training rows in the order in which `shards` equal, contiguous parts are what is wanted."""
    if kind == "skewed":
        return skewed(x, y, shards)
    return spoiled(x, y, shards) if kind == "spoiled" else (x, y)


def skewed(x: np.ndarray, y: np.ndarray, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows so that each shard sees classes of its own, and as many rows as the others.

    What a shard has more than the smallest one is left out.
    """
    groups = np.array_split(np.unique(y), shards)
    places = [np.flatnonzero(np.isin(y, group)) for group in groups]
    size = min(len(found) for found in places)
    chosen = np.concatenate([found[:size] for found in places])
    return x[chosen], y[chosen]


def spoiled(x: np.ndarray, y: np.ndarray, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows so that the first shard holds noise ten times as large, with labels by chance."""
    random = np.random.default_rng(0)
    size = len(np.array_split(y, shards)[0])
    x, y = x.copy(), y.copy()
    x[:size] = 10 * random.normal(size=x[:size].shape)
    y[:size] = random.integers(0, y.max() + 1, size)
    return x, y
