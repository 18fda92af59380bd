"""Let the Python workers of a local session start with Keras imported.

The session gets a copy of `kspark.cluster.daemon`: a daemon that cannot be imported would end every
Python task, and kspark may be imported from a directory that the workers do not know.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kspark.cluster import daemon
from kspark.cluster.backend import keras_backend
from kspark.session.configured import configured_text

MODULE = "spark.python.daemon.module"
USES_DAEMON = "spark.python.use.daemon"
PYTHONPATH = "spark.executorEnv.PYTHONPATH"
SOCKET = f"spark.executorEnv.{daemon.FORK_SERVER}"
VARIABLES = "spark.executorEnv."

_servers: dict[str, subprocess.Popen[bytes]] = {}


def warm_settings(settings: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Return the settings to add to those of a session, so that its workers start warm.

    There are none if the workers run on other hosts, if the user chose a daemon or the path of
    its modules elsewhere, and on systems other than Linux, where a fork of a process that
    imported the backends may crash.

    Args:
        settings: Mapping of Spark's settings.
        directory: `Path` of a directory that lives as long as this process.
    """
    folder = directory / "python"
    usable = sys.platform == "linux" and os.pathsep not in str(folder)
    local = settings.get("spark.master", "").startswith("local")
    own = MODULE in settings or USES_DAEMON in settings or settings_elsewhere()
    if own or not (usable and local):
        return {}
    folder.mkdir(exist_ok=True)
    (folder / f"{daemon.COPY}.py").write_text(inspect.getsource(daemon), encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(folder), settings.get(PYTHONPATH)]))
    return {MODULE: daemon.COPY, PYTHONPATH: path, SOCKET: str(folder / "forks")}


def settings_elsewhere() -> bool:
    """Whether Spark's file of defaults or its command line has one of the settings."""
    found = configured_text()
    return any(name in found for name in (MODULE, USES_DAEMON, PYTHONPATH))


def start_fork_server(settings: Mapping[str, str], python: str) -> None:
    """Import Keras in a process of its own, of which the daemons of the session are forks.

    The first call starts the process, for all sessions of this one. A daemon imports Keras itself
    if the process is not there, or differs from it in what is fixed when Python starts.

    Args:
        settings: Mapping of Spark's settings.
        python: String, the Python of the workers.
    """
    path = settings.get(SOCKET)
    if path is None or path in _servers or python != sys.executable:
        return
    own = {
        key.removeprefix(VARIABLES): value
        for key, value in settings.items()
        if key.startswith(VARIABLES)
    }
    environment = {
        **os.environ,
        # The values that Spark gives its workers, unless the user does.
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0"),
        "PYTHONUNBUFFERED": "YES",
        "OMP_NUM_THREADS": settings.get("spark.task.cpus", "1"),
        **own,
        "PYTHONPATH": os.pathsep.join(str(entry) or os.getcwd() for entry in sys.path),
    }
    program = str(Path(path).with_name(f"{daemon.COPY}.py"))
    with contextlib.suppress(OSError):
        _servers[path] = server = subprocess.Popen(
            [python, program, "--serve", path, keras_backend()],
            stdin=subprocess.PIPE,  # The process ends when its stdin is closed.
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        atexit.register(_stop, server, os.getpid())


def _stop(server: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:  # A forked child leaves it to its parent.
        server.terminate()
        server.wait()
