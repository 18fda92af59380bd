"""Models with large tables and frozen layers, as specs; small ones."""

from __future__ import annotations

import numpy as np
import pytest

from kspark.weights import FIXED, STATE, TRAINABLE, Weight, WeightSpec, layout

# A table of five rows, a kernel, and two variables that are not trained.
SPEC = WeightSpec(
    (
        Weight("frozen", (2, 2), "float32", STATE),
        Weight("bias", (1,), "float32", TRAINABLE),
        Weight("table", (5, 2), "float32", TRAINABLE),
        Weight("seed", (2,), "uint32", FIXED),
        Weight("kernel", (3, 1), "float32", TRAINABLE),
        Weight("mean", (3,), "float32", STATE),
    )
)


@pytest.fixture
def spec():
    """In its vector: bias 0, table 1 to 11, kernel 11 to 14, frozen 14 to 18, mean 18 to 21."""
    return SPEC


@pytest.fixture(autouse=True)
def small_tables(monkeypatch):
    monkeypatch.setattr(layout, "LEAST_ROWS", 4)
    monkeypatch.setattr(layout, "LEAST_BYTES", 1)


def vector_of(size, **values):
    vector = np.zeros(size, "f4")
    for place, value in values.items():
        vector[int(place[1:])] = value
    return vector


@pytest.fixture
def vector():
    """A vector of zeros but for some places: `vector(21, _3=1.5)`."""
    return vector_of
