"""Run a replica's steps on each Keras backend.

Only this package imports TensorFlow, JAX or torch, and it only imports the one in
use: `get_backend` imports the module of a backend on demand.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from types import MappingProxyType

from kspark.cluster.backend import command, is_installed
from kspark.errors import EnvironmentMismatchError, invalid
from kspark.replica.backends.base import Backend

MODULES = MappingProxyType(
    {
        "tensorflow": "kspark.replica.backends.tensorflow",
        "jax": "kspark.replica.backends.jax",
        "torch": "kspark.replica.backends.torch",
    }
)
"""The module for each backend."""


def get_backend(name: str) -> Backend:
    """Import the module that runs replicas on a Keras backend.

    Args:
        name: String, `"tensorflow"`, `"jax"` or `"torch"`.

    Returns:
        A module with the members of `kspark.replica.backends.base.Backend`.

    Raises:
        ValueError: If the backend is unknown.
    """
    if name not in MODULES:
        known = ", ".join(f'"{n}"' for n in MODULES)
        raise invalid("backend", f"one of {known}", name)
    module: Backend = importlib.import_module(MODULES[name])
    return module


def use_backend(name: str, threads: int | None = None) -> None:
    """Choose the Keras backend of this process and its number of threads.

    Keras reads its backend from the environment once, when it is first imported.

    Args:
        name: String, the backend's name.
        threads: Integer, threads that the backend may use. Defaults to `None`, the
            backend's default.

    Raises:
        ValueError: If the backend is unknown.
        EnvironmentMismatchError: If Keras already runs on another backend in this process, or
            the backend is not installed.
    """
    running = running_backend()
    if running is None:
        if name in MODULES and not is_installed(name):
            raise EnvironmentMismatchError(
                f"The model was made with the Keras backend {name!r}, which is not installed for "
                f"the Python of this worker, {sys.executable} on host {socket.gethostname()}. Run "
                f"`{command(name)}` there, or set PYSPARK_PYTHON to a Python that has it."
            )
        os.environ["KERAS_BACKEND"] = name
    elif running != name:
        raise EnvironmentMismatchError(
            f"The model was made with the Keras backend {name!r}, but Keras already runs on "
            f"{running!r} in this Python process. Set KERAS_BACKEND={name} for the executors "
            f"(spark.executorEnv.KERAS_BACKEND={name}), or do not import Keras before kspark."
        )
    if threads is not None:
        get_backend(name).configure_threads(threads, name)


def running_backend() -> str | None:
    """Return the name of Keras' backend in this process, or `None` if Keras is not imported."""
    if "keras" not in sys.modules:
        return None
    import keras

    return str(keras.backend.backend())
