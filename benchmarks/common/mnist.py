"""Rows in the shape of MNIST: 48,000 for training and 2,000 for tests.

The source is MNIST's published test set of 10,000 images, as `t10k-images-idx3-ubyte.gz` and
`t10k-labels-idx1-ubyte.gz`. 2,000 of these images are for tests. The other 8,000 and five
copies of them, each shifted by a pixel, are for training. Without the files, synthetic images
of the same number and shape take their place.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

SIDE = 28
NUM_TRAIN, NUM_TEST = 8_000, 2_000
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1))
NAMES = ("x", "y", "x_test", "y_test")


def write(folder: Path, source: Path | None) -> str:
    """Write one `.npy` file per name of `NAMES`.

    Args:
        folder: Path to write to.
        source: Path of the folder with MNIST's files, or `None`.

    Returns:
        String, a description of the rows.
    """
    images, labels, origin = published(source) or synthetic()
    order = np.random.RandomState(0).permutation(len(images))
    first, rest = order[:NUM_TRAIN], order[NUM_TRAIN:]
    x = np.concatenate([np.roll(images[first], shift, axis=(1, 2)) for shift in SHIFTS])
    y = np.tile(labels[first], len(SHIFTS))
    mixed = np.random.RandomState(1).permutation(len(x))
    arrays = (rows(x[mixed]), y[mixed], rows(images[rest]), labels[rest])
    for name, array in zip(NAMES, arrays, strict=True):
        np.save(folder / f"{name}.npy", array)
    return f"{len(x):,} x {SIDE * SIDE} training rows, {len(rest):,} test rows: {origin}"


def read(folder: str) -> list[np.ndarray]:
    """Read the arrays that `write` wrote, in the order of `NAMES`."""
    return [np.load(Path(folder) / f"{name}.npy") for name in NAMES]


def rows(images: np.ndarray) -> np.ndarray:
    """One row of float32 pixels between 0 and 1 per image."""
    return images.reshape(len(images), -1).astype("float32") / 255


def published(source: Path | None) -> tuple[np.ndarray, np.ndarray, str] | None:
    """MNIST's test images and labels, or `None` if `source` has no such files."""
    if source is None:
        return None
    try:
        images = gzip.decompress((source / "t10k-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((source / "t10k-labels-idx1-ubyte.gz").read_bytes())
    except FileNotFoundError:
        return None
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, SIDE, SIDE)
    return pixels, np.frombuffer(labels, np.uint8, offset=8).astype("int32"), "MNIST, shifted"


def synthetic() -> tuple[np.ndarray, np.ndarray, str]:
    """Images of ten coarse patterns with noise, which a perceptron can learn."""
    rng = np.random.default_rng(0)
    patterns = rng.random((10, SIDE // 4, SIDE // 4)).repeat(4, axis=1).repeat(4, axis=2)
    labels = rng.integers(0, 10, NUM_TRAIN + NUM_TEST, dtype="int32")
    noise = rng.normal(0, 0.8, (len(labels), SIDE, SIDE))
    pixels = np.clip(patterns[labels] + noise, 0, 1) * 255
    return pixels.astype(np.uint8), labels, "synthetic, because MNIST's files were not found"
