"""Small models and data; plain `keras.Model.fit` is the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kspark
from kspark.replica import Replica, ReplicaSpec
from kspark.replica.building import build
from kspark.shards import Window

layers = keras.layers


def as_list(value: Any, names: list[str] | None = None) -> list[np.ndarray]:
    if value is None:
        return []
    if isinstance(value, dict):
        return [value[n] for n in (names or sorted(value))]
    return list(value) if isinstance(value, list | tuple) else [value]


@pytest.fixture
def window_of() -> Callable[..., Window]:
    """Arrays in the structures `fit` takes them, as a window."""

    def make(x: Any, y: Any = None, sample_weight: Any = None, **more: Any) -> Window:
        return Window(as_list(x), as_list(y), as_list(sample_weight), **more)

    return make


@pytest.fixture
def mlp() -> Callable[..., keras.Model]:
    """A compiled MLP with four inputs and three classes."""

    def make(optimizer: Any = "sgd", *more: keras.Layer, **compile_args: Any) -> keras.Model:
        keras.utils.set_random_seed(7)
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(5, activation="tanh"),
                *more,
                layers.Dense(3, activation="softmax"),
            ]
        )
        compile_args.setdefault("loss", "sparse_categorical_crossentropy")
        model.compile(optimizer, **compile_args)
        return model

    return make


@pytest.fixture
def rows() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Random rows for `mlp`, the same in every call."""

    def make(count: int = 22) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(3)
        return rng.normal(size=(count, 4)).astype("float32"), rng.integers(0, 3, count)

    return make


@pytest.fixture
def rebuilt() -> Callable[..., Replica]:
    """A replica as a worker has it: through `ReplicaSpec` and back."""

    def make(model: keras.Model, custom_objects: Any = None) -> Replica:
        return build(ReplicaSpec.of(model, custom_objects))

    return make


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a process of its own, with the kspark of this one."""

    def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = str(Path(kspark.__file__).parents[1])
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    return run
