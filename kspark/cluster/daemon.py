"""Serve Spark's Python workers from a process that imported Keras before it forks them.

Spark forks its Python workers from a daemon, which it runs as
`python -m <spark.python.daemon.module>`. With this module as the daemon, the workers start with
Keras and its backend imported. The import takes place once per host instead of once per worker,
also for workers that replace others after a crash or an interrupt.

The daemon imports Keras only for functions that have `BACKEND` in their environment, as kspark's
have, and serves all others as Spark's daemon does. Spark starts a daemon for each environment.

A local session imports Keras while the JVM starts: `serve_forks` runs in a process of its own, and
the daemons that Spark starts later are forks of it.

Nothing may run on the backend before the fork. TensorFlow, JAX and torch do not work in a fork of
a process in which they computed something, and threads and devices are set in the worker.

This module imports nothing of kspark when it is loaded, so that `local_session` can copy it to a
directory where the workers find it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

BACKEND = "KSPARK_WARM"
"""Environment variable of kspark's functions: the Keras backend to import."""

FORK_SERVER = "KSPARK_FORK_SERVER"
"""Environment variable of the daemon: the socket of `serve_forks`, if one runs."""

MARK = "KSPARK_WARM_WORKER"
"""Environment variable of the workers: the backend that was imported before they were forked."""

BEFORE_KERAS = ("kspark", "pyarrow", "pandas")
"""Modules to import first: kspark hides the messages of TensorFlow, and some versions of PyArrow
and of the backends work in one process only if PyArrow was imported first."""

AFTER_KERAS = (
    # Keras imports TensorFlow in the first `fit` on JAX and torch, where it is installed.
    "tensorflow",
    "pyspark.worker",
    "kspark.live.task",
    "kspark.rounds.task",
    "kspark.worker.inference",
    "kspark.worker.spooling",
)
"""Modules to import last, which a task imports in any case."""

THREADS = "OMP_NUM_THREADS"
"""Environment variable that Spark sets to the cores of a task."""

LENGTH_BYTES = 8
"""Bytes of the length that a request to `serve_forks` begins with."""


def main() -> None:
    """Run as Spark's daemon, or with the arguments `--serve PATH BACKEND` as the fork server."""
    if sys.argv[1:2] == ["--serve"]:
        serve_forks(sys.argv[2], sys.argv[3])
        return
    if backend := os.environ.get(BACKEND):
        path = os.environ.get(FORK_SERVER)
        if path and run_in_fork(path, backend):
            return
        with stdout_to_stderr():
            preload(backend)
    serve_workers()


def serve_workers() -> None:
    """Fork workers whenever Spark asks for one, until it closes this process' stdin."""
    # PySpark, 3.5 to 4.3, has no public name for its daemon.
    from pyspark.daemon import manager

    manager()


def preload(backend: str) -> None:
    """Import Keras on a backend, and prepare this process to be forked.

    A module that cannot be imported is no error here: the task that needs it raises one.
    """
    os.environ["KERAS_BACKEND"] = backend
    for name in BEFORE_KERAS:
        imported(name)
    if imported("keras"):
        os.environ[MARK] = backend
    for name in AFTER_KERAS:
        imported(name)
    os.register_at_fork(after_in_child=seed_anew)
    gc.collect()
    # Collections in the workers do not touch, and so do not copy, the memory that they share.
    gc.freeze()


def imported(name: str) -> bool:
    """Import a module, and return whether that was possible."""
    with contextlib.suppress(Exception):
        importlib.import_module(name)
        return True
    return False


def seed_anew() -> None:
    """Give a new process random numbers of its own, instead of those of its parent."""
    random.seed()
    for name in ("numpy.random", "torch"):
        if name in sys.modules:
            sys.modules[name].seed()


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send the output of imports to stderr: from stdout, Spark reads the daemon's port."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def serve_forks(path: str, backend: str) -> None:
    """Import Keras, then fork a daemon for every request, until this process' stdin is closed.

    Args:
        path: String, the Unix socket to listen on.
        backend: String, the Keras backend to import.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        with short_name(path) as name:
            listener.bind(name)
        listener.listen()
        preload(backend)
        while True:
            ready, _, _ = select.select([0, listener.fileno()], [], [])
            if 0 in ready:
                return
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    become_daemon(connection)
                    return


def fixed_at_start() -> list[str | None]:
    """Return what a process cannot change after Python has started and NumPy was imported."""
    return [sys.executable, *(os.environ.get(name) for name in ("PYTHONHASHSEED", THREADS))]


def become_daemon(connection: socket.socket) -> None:
    """Serve workers in the place of the process that sent a request, as its fork would."""
    length, fds, _, _ = socket.recv_fds(connection, LENGTH_BYTES, 3)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.read(int.from_bytes(length, "big")))
    if request["fixed"] != fixed_at_start() or request["backend"] != os.environ.get(MARK):
        return
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update({**request["environment"], MARK: request["backend"]})
    os.chdir(request["directory"])
    sys.path[:] = request["path"]
    sys.argv[:] = request["arguments"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection.sendall(b"%d" % os.getpid())
    # The other process waits until nobody has the connection open.
    os.register_at_fork(after_in_child=connection.close)
    serve_workers()


def run_in_fork(path: str, backend: str) -> bool:
    """Let a fork of the fork server serve workers in the place of this process.

    Args:
        path: String, the socket of `serve_forks`.
        backend: String, the Keras backend that the fork must have imported.

    Returns:
        Boolean, whether there was such a fork. If so, it has ended.
    """
    request = {
        "backend": backend,
        "fixed": fixed_at_start(),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "path": sys.path,
        "arguments": sys.argv,
    }
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        with short_name(path) as name:
            connection.connect(name)
        content = json.dumps(request).encode()
        socket.send_fds(connection, [len(content).to_bytes(LENGTH_BYTES, "big")], [0, 1, 2])
        connection.sendall(content)
        if answer := connection.recv(32):
            wait_for_fork(int(answer), connection)
            return True
    return False


@contextlib.contextmanager
def short_name(path: str) -> Iterator[str]:
    """Yield another name of a file. The path of a socket must not exceed 107 bytes."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def wait_for_fork(pid: int, connection: socket.socket) -> None:
    """Wait until a fork has closed its connection, and hand on Spark's signal to end."""

    def stop(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)
    connection.recv(1)


if __name__ == "__main__":
    main()
