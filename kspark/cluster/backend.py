"""Find out which backend Keras has, and whether it is installed, without importing either."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import MappingProxyType

from kspark.errors import BackendError, sentence

LIBRARIES = MappingProxyType({"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"})
"""The names of the backends that kspark trains on, and of their libraries."""

DEFAULT = "tensorflow"
"""The backend that Keras takes if nobody names one."""


def check_backend() -> None:
    """Check that the backend that Keras has, or will have, is one of the three and installed.

    Workers are not checked: they get the name of their backend later, from the driver, which
    calls `kspark.check_cluster`.

    Raises:
        BackendError: If it is not.
    """
    if is_spark_worker():
        return
    name, source = named_backend()
    if name not in LIBRARIES:
        rule = f"one of {', '.join(map(quoted, LIBRARIES))}"
        raise BackendError(f"{sentence('KERAS_BACKEND', rule, name)}, from {source}.")
    if "keras" not in sys.modules and not is_installed(name):
        raise missing(name, source)


def missing(name: str, source: str) -> BackendError:
    """Return the error for a backend that is not installed, with the remedies.

    Args:
        name: String, the backend.
        source: String, who named it.
    """
    installed = [other for other in LIBRARIES if is_installed(other)]
    if not installed:
        commands = [f"`{command(each)}` for {library}" for each, library in LIBRARIES.items()]
        return BackendError(
            "Keras computes with TensorFlow, JAX or PyTorch, and none of them is installed. "
            f"Run {commands[0]}, {commands[1]}, or {commands[2]}. To use JAX or PyTorch, also set "
            "the environment variable KERAS_BACKEND=jax or KERAS_BACKEND=torch before Python "
            "starts."
        )
    others = " or ".join(f"KERAS_BACKEND={other}" for other in installed)
    return BackendError(
        f"The backend of Keras is {quoted(name)}, from {source}, but {LIBRARIES[name]} is not "
        f"installed. Set the environment variable {others} before Python starts, or run "
        f"`{command(name)}`."
    )


def command(backend: str) -> str:
    """Return the command that installs a backend."""
    return f"pip install {backend}"


def quoted(name: str) -> str:
    """Return a name in the quotation marks of the documentation."""
    return f'"{name}"'


def is_installed(package: str) -> bool:
    """Whether a package, such as that of a backend, can be found. It is not imported."""
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        spec = importlib.util.find_spec(package)
    except ImportError:
        return False
    return spec is not None and spec.origin is not None  # Any folder of the name has a spec.


def keras_backend() -> str:
    """Return the backend that Keras uses in this process, without importing it."""
    return named_backend()[0]


def named_backend() -> tuple[str, str]:
    """Return the backend that Keras uses in this process, and who has named it.

    Returns:
        Pair of strings.
    """
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend()), "Keras, which is imported"
    if name := os.environ.get("KERAS_BACKEND"):
        return name, "the environment variable KERAS_BACKEND"
    path = keras_home() / "keras.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["backend"]), f"the file {path}"
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT, "the default of Keras"


def keras_home() -> Path:
    """Return the folder of Keras' settings."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"])
    home = os.path.expanduser("~")
    return Path(home if os.access(home, os.W_OK) else "/tmp", ".keras")


def is_spark_worker() -> bool:
    """Whether this process is a Python worker of Spark, or the daemon that forks them.

    PySpark has no public way to ask outside of a task. Spark 3.5 to 4.3 tell each such process in
    its environment how to connect to the JVM.
    """
    return any(name.startswith("PYTHON_WORKER_FACTORY_") for name in os.environ)
