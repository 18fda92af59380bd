"""48,000 rows in the shape of MNIST, as files that every measured process maps.

The 10,000 images that MNIST publishes for tests are divided 8,000 / 2,000; the
8,000 and five copies of them, shifted by a pixel, train. Without the files, a
synthetic set of the same size and shape takes their place.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

SIDE = 28
NUM_TRAIN, NUM_TEST = 8_000, 2_000
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1))
NAMES = ("x", "y", "x_test", "y_test")


def write(folder: Path, source: Path) -> str:
    """Write the arrays of `NAMES` into `folder`, and say what they are made of."""
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
    """The arrays of `NAMES`, in memory."""
    return [np.load(Path(folder) / f"{name}.npy") for name in NAMES]


def rows(images: np.ndarray) -> np.ndarray:
    """Pixels from 0 to 1, one row per image."""
    return images.reshape(len(images), -1).astype("float32") / 255


def published(source: Path) -> tuple[np.ndarray, np.ndarray, str] | None:
    """MNIST's test images and labels, or `None` if `source` does not hold them."""
    try:
        images = gzip.decompress((source / "t10k-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((source / "t10k-labels-idx1-ubyte.gz").read_bytes())
    except FileNotFoundError:
        return None
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, SIDE, SIDE)
    return pixels, np.frombuffer(labels, np.uint8, offset=8).astype("int32"), "MNIST, shifted"


def synthetic() -> tuple[np.ndarray, np.ndarray, str]:
    """Ten blurred patterns under noise: learnable, not trivial."""
    rng = np.random.default_rng(0)
    patterns = rng.random((10, SIDE // 4, SIDE // 4)).repeat(4, axis=1).repeat(4, axis=2)
    labels = rng.integers(0, 10, NUM_TRAIN + NUM_TEST, dtype="int32")
    noise = rng.normal(0, 0.8, (len(labels), SIDE, SIDE))
    pixels = np.clip(patterns[labels] + noise, 0, 1) * 255
    return pixels.astype(np.uint8), labels, "synthetic, since MNIST's files are not there"
