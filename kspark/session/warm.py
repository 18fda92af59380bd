"""Let the Python workers of a local session start with Keras imported.

See `kspark.cluster.daemon`, of which the session gets a copy: a daemon that cannot be imported
would end every Python task, and kspark may be imported from a directory that workers do not know.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kspark.cluster import daemon

DAEMON = "kspark_daemon"
"""Module name of the copy."""

MODULE = "spark.python.daemon.module"
"""Spark's setting for the daemon."""

SEEDED = "PYTHONHASHSEED"
"""Environment variable of an interpreter that Spark sets for its workers, to 0 by default."""


@functools.cache
def warm_settings(directory: str) -> dict[str, str]:
    """Return the settings that make the workers of a session start with Keras imported.

    Only Linux: on other systems, a fork of a process that imported the backends may crash.

    Args:
        directory: String, a directory that lives as long as this process.
    """
    if sys.platform != "linux":
        return {}
    folder = Path(directory) / "python"
    folder.mkdir()
    shutil.copyfile(daemon.__file__, folder / f"{DAEMON}.py")
    return {
        MODULE: DAEMON,
        "spark.executorEnv.PYTHONPATH": str(folder),
        f"spark.executorEnv.{daemon.FORK_SERVER}": str(folder / "forks"),
    }


def start_fork_server(settings: Mapping[str, str], python: str) -> None:
    """Import Keras in the background, for the workers of a session with `settings`.

    Args:
        settings: Mapping of Spark's settings, with those of `warm_settings`.
        python: String, the Python of the workers.
    """
    path = settings.get(f"spark.executorEnv.{daemon.FORK_SERVER}")
    if path and settings.get(MODULE) == DAEMON:
        threads = settings.get("spark.executorEnv.OMP_NUM_THREADS")
        _start_once(path, python, threads or settings.get("spark.task.cpus", "1"))


@functools.cache
def _start_once(path: str, python: str, threads: str) -> None:
    """Start the fork server, which ends when this process does."""
    if os.path.exists(path):  # It was started with other arguments, and serves all sessions.
        return
    server = subprocess.Popen(
        [python, Path(path).with_name(f"{DAEMON}.py"), "--serve", path, keras_backend()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={
            **os.environ,
            # As Spark sets them for a worker. They act when Python starts or NumPy is imported.
            SEEDED: os.environ.get(SEEDED, "0"),
            "OMP_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
        },
    )
    atexit.register(_stop, server, os.getpid())


def _stop(server: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner and server.stdin is not None:
        server.stdin.close()
        server.wait()


def keras_backend() -> str:
    """Return the backend that Keras uses in this process, without importing it."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    try:
        return str(json.loads((home / "keras.json").read_text())["backend"])
    except (OSError, ValueError, KeyError):
        return "tensorflow"
