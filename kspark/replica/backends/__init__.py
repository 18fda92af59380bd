"""Keras backends: how each of them runs a replica's steps.

Nothing outside this package imports TensorFlow, JAX or torch, and nothing in
here imports one that was not asked for: `get_backend` imports the module of
the backend in use, and only that.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import MappingProxyType

from kspark.errors import EnvironmentMismatchError, invalid
from kspark.replica.backends.base import Backend

MODULES = MappingProxyType(
    {
        "tensorflow": "kspark.replica.backends.tensorflow",
        "jax": "kspark.replica.backends.generic",
        "torch": "kspark.replica.backends.generic",
    }
)
"""Backend name to the module that serves it."""

MERGING = frozenset({"tensorflow"})
"""Backends whose gradients can be merged between replicas before they are applied."""


def get_backend(name: str) -> Backend:
    """The module that runs replicas on a Keras backend.

    Args:
        name: String, `"tensorflow"`, `"jax"` or `"torch"`.

    Returns:
        A module with the functions of `kspark.replica.backends.base.Backend`.

    Raises:
        ValueError: If the backend is not known.
    """
    if name not in MODULES:
        known = ", ".join(f'"{n}"' for n in MODULES)
        raise invalid("backend", f"one of {known}", name)
    module: Backend = importlib.import_module(MODULES[name])
    return module


def use_backend(name: str, threads: int | None = None) -> None:
    """Make this process run Keras on a backend, with so many threads.

    Keras reads its backend from the environment once, when it is first imported.

    Args:
        name: String, the backend's name.
        threads: Integer, threads the backend may use; `None` leaves its default.

    Raises:
        ValueError: If the backend is not known.
        EnvironmentMismatchError: If Keras already runs on another one in this process.
    """
    running = running_backend()
    if running is None:
        os.environ["KERAS_BACKEND"] = name
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    elif running != name:
        raise EnvironmentMismatchError(
            f"The model was made with the Keras backend {name!r}, but Keras already runs on "
            f"{running!r} in this Python process. Set KERAS_BACKEND={name} for the executors "
            f"(spark.executorEnv.KERAS_BACKEND={name}), or import Keras nowhere before kspark."
        )
    if threads is not None:
        get_backend(name).configure_threads(threads, name)


def running_backend() -> str | None:
    """Name of the backend Keras runs on in this process; `None` if it is not imported."""
    if "keras" not in sys.modules:
        return None
    import keras

    return str(keras.backend.backend())
