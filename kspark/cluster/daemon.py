"""Serve Spark's Python workers from a process that imported Keras before it forks them.

Spark forks its Python workers from a daemon, which it runs as
`python -m <spark.python.daemon.module>`. With this module as the daemon, the workers start with
Keras and its backend imported. The import takes place once per executor instead of once per worker,
also for workers that replace others after a crash or an interrupt.

The daemon imports Keras only for functions that have `BACKEND` in their environment, as kspark's
have, and serves all others as Spark's daemon does. Spark starts a daemon for each environment.

A local session imports Keras while the JVM starts: `serve_forks` runs in a process of its own, and
the daemons that Spark starts later are forks of it.

Nothing may run on the backend before the fork. TensorFlow, JAX and torch do not work in a fork of
a process in which they computed something, and threads and devices are set in the worker.

Loading it imports nothing of kspark, so that `local_session` can copy it to where workers find it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import FrameType

COPY = "kspark_daemon"
"""Name of this module's copy in a local session."""

NAMES = ("kspark.cluster.daemon", COPY)
"""Names of this module in `spark.python.daemon.module`."""

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
    "pyspark.worker",
    "kspark.live.task",
    "kspark.rounds.task",
    "kspark.worker.inference",
    "kspark.worker.spooling",
)
"""Modules to import last, which a task imports in any case."""

OF_SPARK = ("KSPARK_", "PYSPARK_", "PYTHON_", "SPARK_", "_")
"""Prefixes of variables that Spark and kspark set for a daemon. Imports do not read them."""

UNREAD = ("JAVA_HOME", "KERAS_BACKEND", "OLDPWD", "PWD", "PYTHONPATH", "SHLVL")
"""Other variables that may differ between the fork server and a daemon that it replaces."""

LENGTH_BYTES = 8
"""Bytes of the length that a request to `serve_forks` begins with."""

ANSWER_SECONDS = 120.0
"""How long a daemon waits for the fork server, which may still import Keras, in seconds."""


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
            warm = preload(backend)
        if not warm:  # Parts of Keras may be in memory, on a backend that is not installed.
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, "-m", "pyspark.daemon", *sys.argv[1:]])
    serve_workers()


def serve_workers() -> None:
    """Fork workers whenever Spark asks for one, until it closes the stdin of this process."""
    # PySpark, 3.5 to 4.3, has no public names for its daemon and for what its workers run.
    from pyspark import daemon

    if hasattr(daemon, "worker"):
        daemon.worker = partial(run_worker, daemon.worker)
    daemon.manager()


def run_worker(worker: Callable[..., int], connection: socket.socket, *more: bool) -> int:
    """Run PySpark's worker, and end it without a traceback if Spark has closed the connection."""
    if sys.unraisablehook is sys.__unraisablehook__:  # A user's function may set its own.
        sys.unraisablehook = partial(show_unraisable, connection)
    try:
        return worker(connection, *more)
    except (ConnectionError, EOFError):
        if not is_closed(connection):
            raise
        os._exit(1)  # Spark has cancelled the task, and waits for no answer.


def show_unraisable(connection: socket.socket, error: sys.UnraisableHookArgs) -> None:
    """Show an error that nobody can catch, but not that of a file if `connection` is closed."""
    # PySpark's file writes its buffer when it is deleted. Python 3.13 and later show the error.
    broken = isinstance(error.exc_value, ConnectionError)
    if not (broken and isinstance(error.object, io.BufferedWriter) and is_closed(connection)):
        sys.__unraisablehook__(error)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection, even if not all it has sent is read."""
    poller = select.poll()
    poller.register(connection, getattr(select, "POLLRDHUP", 0))  # macOS does not have it.
    return bool(poller.poll(0))


def preload(backend: str) -> bool:
    """Import Keras on a backend, and prepare this process to be forked.

    Args:
        backend: String, the name of the Keras backend.

    Returns:
        Boolean, whether Keras could be imported. Other modules may be missing: the task that
        needs one raises an error.
    """
    os.environ["KERAS_BACKEND"] = backend
    # torch would start CUDA to find out whether there is a GPU, and CUDA does not survive a fork.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for name in BEFORE_KERAS:
        imported(name)
    if not imported("keras"):
        return False
    for name in AFTER_KERAS:
        imported(name)
    note_code()
    os.environ[MARK] = backend
    seed_children()
    gc.collect()
    # Collections in the workers do not touch, and so do not copy, the memory that they share.
    gc.freeze()
    return True


def imported(name: str) -> bool:
    """Import a module, and return whether that was possible."""
    with contextlib.suppress(Exception, SystemExit):
        importlib.import_module(name)
        return True
    return False


def note_code() -> None:
    """Note which code of kspark is imported, so that tasks of another kspark replace it."""
    with contextlib.suppress(ImportError):
        bootstrap = importlib.import_module("kspark.cluster.bootstrap")
        sys._kspark_digest = bootstrap.installed_digest()  # type: ignore[attr-defined]


def seed_children() -> None:
    """Give each fork of this process random numbers of its own, but not the forks of these."""
    parent = os.getpid()

    def seed() -> None:
        if os.getppid() != parent:
            return
        random.seed()
        for name in ("numpy.random", "torch"):
            if name in sys.modules:
                sys.modules[name].seed()

    os.register_at_fork(after_in_child=seed)


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
    """Import Keras, then fork a daemon for every request, until the stdin of this process closes.

    Args:
        path: String, the Unix socket to listen on.
        backend: String, the Keras backend to import.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's.
    at_start = dict(os.environ)
    with socket.socket(socket.AF_UNIX) as listener:
        with short_name(path) as name:
            listener.bind(name)
        listener.listen()
        if not preload(backend):
            return
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for the forks.
        added = {name: value for name, value in os.environ.items() if name not in at_start}
        while True:
            ready, _, _ = select.select([0, listener.fileno()], [], [])
            if 0 in ready:
                return
            connection, _ = listener.accept()
            sys.stdout.flush()
            if os.fork() == 0:
                try:
                    listener.close()
                    become_daemon(connection, fixed_at_start(at_start), added)
                finally:
                    os._exit(0)
            connection.close()


def fixed_at_start(environment: Mapping[str, str]) -> list[object]:
    """Return what a process cannot change any more when it has started and imported Keras.

    Args:
        environment: Mapping, the environment variables with which the process started.
    """
    read = {
        name: value
        for name, value in environment.items()
        if not name.startswith(OF_SPARK) and name not in UNREAD
    }
    return [sys.executable, sorted(map(list, read.items()))]


def become_daemon(connection: socket.socket, fixed: list[object], added: Mapping[str, str]) -> None:
    """Serve workers in the place of the process that sent a request.

    Returns at once if this process cannot take its place.

    Args:
        connection: Socket of the request.
        fixed: List, `fixed_at_start` of this process.
        added: Mapping of the environment variables that imports have set.
    """
    length, fds, _, _ = socket.recv_fds(connection, LENGTH_BYTES, 3)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.read(int.from_bytes(length, "big")))
    backend = os.environ[MARK]
    if request["backend"] != backend or request["fixed"] != fixed:
        return
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update({**added, **request["environment"], "KERAS_BACKEND": backend, MARK: backend})
    os.chdir(request["directory"])
    sys.path[:] = request["path"]
    sys.argv[:] = request["arguments"]
    connection.sendall(b"%d" % os.getpid())
    if not connection.recv(1):  # The other process did not wait.
        return
    # It waits now, until this process has ended. The workers do not count.
    os.register_at_fork(after_in_child=connection.close)
    seed_children()
    serve_workers()


def run_in_fork(path: str, backend: str) -> bool:
    """Let a fork of the fork server serve workers in the place of this process.

    Args:
        path: String, the socket of `serve_forks`.
        backend: String, the Keras backend that the fork must have imported.

    Returns:
        Boolean, whether there was such a fork. If so, it has ended.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            answer = request_fork(connection, path, backend)
        except OSError:
            return False
        if answer:
            wait_for_fork(int(answer), connection)
        return bool(answer)


def request_fork(connection: socket.socket, path: str, backend: str) -> bytes:
    """Send a request to the fork server, and return its answer, which is empty if it refuses."""
    request = {
        "backend": backend,
        "fixed": fixed_at_start(os.environ),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "path": sys.path,
        "arguments": sys.argv,
    }
    content = json.dumps(request).encode()
    with short_name(path) as name:
        connection.connect(name)
    socket.send_fds(connection, [len(content).to_bytes(LENGTH_BYTES, "big")], [0, 1, 2])
    connection.sendall(content)
    return connection.recv(32)


def wait_for_fork(pid: int, connection: socket.socket) -> None:
    """Let a fork start, wait until it has ended, and hand on Spark's signal to end."""

    def stop(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)
    connection.settimeout(None)
    with contextlib.suppress(OSError):
        connection.sendall(b"!")
        connection.recv(1)


@contextlib.contextmanager
def short_name(path: str) -> Iterator[str]:
    """Yield another name of a file: the address of a socket has at most 107 bytes."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


if __name__ == "__main__":
    main()
