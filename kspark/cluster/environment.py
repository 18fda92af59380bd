"""Describe the environment of a worker process: Python, packages, cores."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyspark import TaskContext

from kspark.cluster.accelerators import addresses_of
from kspark.cluster.backend import is_installed
from kspark.cluster.daemon import MARK
from kspark.version import __version__

PACKAGES = ("keras", "numpy", "pyarrow")
BACKEND_PACKAGES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos"),
    "jax": ("jax",),
    "torch": ("torch",),
}

OTHER_BUILD = "of unknown version"
"""Stands for the version of a backend whose package has none of these names."""


@dataclass(frozen=True)
class WorkerEnvironment:
    """The environment of one worker process.

    Attributes:
        host: String, name of the host.
        python: String, version of Python.
        executable: String, path of the Python interpreter.
        packages: Dictionary from package name to version, `None` if it is not installed.
        cores: Integer, CPU cores of the host.
        kspark: String, version of the kspark that the process runs. Tasks run the driver's.
        installed_kspark: String, version of the kspark that is installed there; `None` if none
            is.
        warm: Boolean, whether the process started with Keras imported; see
            `kspark.cluster.daemon`.
        gpus: Tuple of strings, addresses of the GPUs that Spark gave to the tasks that answered.
            Defaults to `()`.
        parent: Integer, the process that started this one, of which each executor has its own.
            Defaults to `0`.
    """

    host: str
    python: str
    executable: str
    packages: dict[str, str | None]
    cores: int
    kspark: str
    installed_kspark: str | None
    warm: bool
    gpus: tuple[str, ...] = ()
    parent: int = 0


def environment(backend: str) -> WorkerEnvironment:
    """Return the environment of this process."""
    context = TaskContext.get()
    packages = {name: version_of(name) for name in PACKAGES}
    found = [version_of(name) for name in BACKEND_PACKAGES.get(backend, (backend,))]
    # A build of its own may have another name, such as `tf-nightly`.
    other = OTHER_BUILD if is_installed(backend) else None
    packages[backend] = next((v for v in found if v), other)
    return WorkerEnvironment(
        socket.gethostname(),
        platform.python_version(),
        sys.executable,
        packages,
        os.cpu_count() or 1,
        __version__,
        version_of("kspark"),
        os.environ.get(MARK) == backend,
        () if context is None else tuple(addresses_of(context)),
        os.getppid(),
    )


def version_of(package: str) -> str | None:
    """Return a package's installed version without importing it, `None` if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report_environment(
    backend: str, index: int, rows: Iterable[object]
) -> Iterator[WorkerEnvironment]:
    """Task: yield the environment of the process that runs a partition."""
    for _ in rows:
        continue
    yield environment(backend)
