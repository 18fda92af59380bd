"""Let the Python workers of a local session start with Keras imported.

The session gets a copy of `kspark.cluster.daemon`: a daemon that cannot be imported would end every
Python task, and kspark may be imported from a directory that the workers do not know.
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

MODULE = "spark.python.daemon.module"
PYTHONPATH = "spark.executorEnv.PYTHONPATH"
SOCKET = f"spark.executorEnv.{daemon.FORK_SERVER}"

COPY = "kspark_daemon"
"""Name of the copied module."""

_servers: dict[str, subprocess.Popen[bytes]] = {}


def warm_settings(settings: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Return the settings to add to those of a session, so that its workers start warm.

    There are none if the user chose another daemon, and on systems other than Linux, where a fork
    of a process that imported the backends may crash.

    Args:
        settings: Mapping of Spark's settings.
        directory: `Path` of a directory that lives as long as this process.
    """
    if MODULE in settings or sys.platform != "linux":
        return {}
    folder = _copied(directory)
    path = os.pathsep.join(filter(None, [str(folder), settings.get(PYTHONPATH)]))
    return {MODULE: COPY, PYTHONPATH: path, SOCKET: str(folder / "forks")}


@functools.cache
def _copied(directory: Path) -> Path:
    """Copy the daemon into a directory below `directory`."""
    folder = directory / "python"
    folder.mkdir()
    shutil.copyfile(daemon.__file__, folder / f"{COPY}.py")
    return folder


def start_fork_server(settings: Mapping[str, str], python: str) -> None:
    """Import Keras in a process of its own, of which the daemons of the session are forks.

    The first call starts the process, for all sessions of this one. A daemon imports Keras itself
    if it differs from the process in what is fixed when Python starts.

    Args:
        settings: Mapping of Spark's settings.
        python: String, the Python of the workers.
    """
    path = settings.get(SOCKET)
    if path is None or path in _servers:
        return
    cores = settings.get("spark.task.cpus", "1")
    environment = {
        **os.environ,
        # The values that Spark gives its workers.
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0"),
        daemon.THREADS: settings.get(f"spark.executorEnv.{daemon.THREADS}", cores),
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }
    _servers[path] = subprocess.Popen(
        [python, Path(path).with_name(f"{COPY}.py"), "--serve", path, keras_backend()],
        # The process ends when this one does, because nobody else has the other end.
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    atexit.register(_stop, _servers[path], os.getpid())


def _stop(server: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:
        server.terminate()
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
