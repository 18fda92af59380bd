"""The daemon of warm workers, run as Spark runs it, with small stand-ins for Keras."""

import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kspark.cluster import daemon
from kspark.cluster.bootstrap import package_archive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers start warm on Linux only")

IMPORTED = b"Keras is imported"
FAILS = "raise ImportError('this module is broken')"


@pytest.fixture
def modules(tmp_path):
    """A folder of modules that stand in for Keras and for what is imported with it."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "keras.py").write_text(f"import os; os.write(1, {IMPORTED!r})")
    for name in ("tensorflow", "kspark", "pandas", "pyarrow"):
        (folder / f"{name}.py").write_text(FAILS)
    return folder


class Started:
    """A process of the daemon's module; a context that ends it."""

    def __init__(self, modules, *arguments, **variables):
        path = os.pathsep.join([str(modules), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, daemon.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTEST_CURRENT_TEST": "", "PYTHONPATH": path, **variables},
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def port(self):
        """The port that Spark would read."""
        return int.from_bytes(self.process.stdout.read(4), "big")

    def connect(self):
        """A connection to a new worker, as Spark opens one, and the worker's process."""
        connection = socket.create_connection(("127.0.0.1", self.port()), timeout=60)
        return connection, int.from_bytes(connection.recv(4), "big")

    def end(self):
        """Close its stdin, as Spark does, and return what it wrote to stdout and stderr."""
        return self.process.communicate(timeout=60)


def wait_for_end(pid):
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


@pytest.fixture
def server(modules, tmp_path):
    folder = tmp_path / ("a folder whose name is too long for the address of a socket " * 3)
    folder.mkdir()
    path = folder / "forks"
    with Started(modules, "--serve", str(path), "tensorflow") as server:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield {"process": server, "variables": {daemon.FORK_SERVER: str(path)}}


def test_the_code_that_is_imported_is_noted_for_tasks_of_another_kspark(monkeypatch):
    monkeypatch.setattr(sys, "_kspark_digest", None, raising=False)
    daemon.note_code()
    assert sys._kspark_digest == package_archive()[1]


def test_functions_of_others_get_sparks_daemon(modules):
    with Started(modules, "pyspark.worker") as started:
        assert 0 < started.port() < 2**16
        assert started.end() == (b"", b"")


def test_the_output_of_imports_is_not_taken_for_the_port(modules):
    with Started(modules, "pyspark.worker", **{daemon.BACKEND: "tensorflow"}) as started:
        assert 0 < started.port() < 2**16
        assert started.end() == (b"", IMPORTED)


def test_a_module_that_cannot_be_imported_does_not_end_the_daemon(modules):
    (modules / "keras.py").write_text(FAILS)
    with Started(modules, "pyspark.worker", **{daemon.BACKEND: "tensorflow"}) as started:
        assert 0 < started.port() < 2**16
        assert started.end() == (b"", b"")


def test_a_fork_of_the_server_serves_without_another_import(modules, server):
    variables = {**server["variables"], daemon.BACKEND: "tensorflow"}
    for _ in range(2):
        with Started(modules, "pyspark.worker", **variables) as started:
            assert 0 < started.port() < 2**16
            assert started.end() == (b"", b"")
    assert server["process"].end() == (IMPORTED, b"")
    assert server["process"].process.returncode == 0


def test_sparks_signal_ends_the_fork_as_well(modules, server):
    variables = {**server["variables"], daemon.BACKEND: "tensorflow"}
    with Started(modules, "pyspark.worker", **variables) as started:
        assert started.port()
        children = Path(f"/proc/{server['process'].process.pid}/task").glob("*/children")
        (fork,) = " ".join(path.read_text() for path in children).split()
        started.process.terminate()
        wait_for_end(fork)


@pytest.mark.parametrize(
    "variables",
    [
        {daemon.BACKEND: "jax"},
        {daemon.BACKEND: "tensorflow", "PYTHONHASHSEED": "7"},
        {daemon.BACKEND: "tensorflow", "OMP_NUM_THREADS": "7"},
        {daemon.BACKEND: "tensorflow", "READ_BY_AN_IMPORT": "7"},
        {daemon.BACKEND: "tensorflow", daemon.FORK_SERVER: "/no/such/socket"},
    ],
)
def test_a_daemon_that_the_server_cannot_replace_imports_keras_itself(modules, server, variables):
    with Started(modules, "pyspark.worker", **{**server["variables"], **variables}) as started:
        assert 0 < started.port() < 2**16
        assert started.end() == (b"", IMPORTED)


# Spark 4.1 and later ask for the last: an error of a worker that cannot write ends it.
TASK = {
    "PYTHON_WORKER_FACTORY_SECRET": "secret",
    "SPARK_REUSE_WORKER": "1",
    "PYTHON_DAEMON_KILL_WORKER_ON_FLUSH_FAILURE": "True",
}


def say_the_secret(connection):
    connection.sendall((6).to_bytes(4, "big") + b"secret")
    assert connection.recv(6, socket.MSG_WAITALL) == (2).to_bytes(4, "big") + b"ok"


def reset(connection):
    """Close a connection as it is closed if not all that the worker wrote has been read."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def close_at_once(connection):
    """The worker's error is an EOFError."""
    connection.close()


def reset_at_once(connection):
    """The worker's error is a ConnectionResetError."""
    reset(connection)


def reset_later(connection):
    """The worker's error is a BrokenPipeError when it tells the one of its task."""
    say_the_secret(connection)
    reset(connection)


@pytest.mark.parametrize("cancel", [close_at_once, reset_at_once, reset_later])
def test_a_worker_whose_task_spark_cancels_shows_no_traceback(modules, cancel):
    with Started(modules, "pyspark.worker", **TASK) as started:
        connection, worker = started.connect()
        cancel(connection)
        wait_for_end(worker)
        assert started.end() == (b"", b"")


def test_a_worker_whose_connection_is_open_shows_the_same_error(modules):
    end_of_section = (-1).to_bytes(4, "big", signed=True)
    with Started(modules, "pyspark.worker", **TASK) as started:
        connection, worker = started.connect()
        with connection:
            connection.sendall(end_of_section)  # To PySpark, this is an EOFError.
            wait_for_end(worker)
        assert started.end()[1].splitlines()[-1] == b"EOFError"


@pytest.fixture
def connection():
    """Two ends of a connection."""
    spark, worker = socket.socketpair()
    with spark, worker:
        yield spark, worker


def test_a_connection_is_closed_even_if_not_all_is_read(connection):
    spark, worker = connection
    assert not daemon.is_closed(worker)
    spark.sendall(b"rows")
    assert not daemon.is_closed(worker)
    spark.close()
    assert daemon.is_closed(worker)


@pytest.mark.parametrize(
    ("error", "closed", "shown"),
    [
        (BrokenPipeError(), True, False),
        (BrokenPipeError(), False, True),
        (ValueError("of a user's class"), True, True),
    ],
)
def test_what_a_deleted_file_cannot_write_is_shown_if_the_connection_is_open(
    error, closed, shown, connection, monkeypatch, tmp_path
):
    spark, worker = connection
    if closed:
        spark.close()
    found = []
    monkeypatch.setattr(sys, "__unraisablehook__", found.append)
    with open(tmp_path / "file", "wb") as file:
        unraisable = SimpleNamespace(exc_value=error, object=file)
        daemon.show_unraisable(worker, unraisable)
    assert found == [unraisable] * shown


FORKED = """
import os, random
import numpy as np
from kspark.cluster import daemon

def drawn(parent=None):
    reader, writer = os.pipe()
    if os.fork() == 0:
        numbers = parent() if parent else f"{np.random.rand()} {random.random()}"
        os.write(writer, numbers.encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    return os.read(reader, 1000).decode()

daemon.seed_children()
print(drawn(), drawn())
def of_a_worker():
    np.random.seed(1)
    return f"{drawn().split()[0]} {drawn().split()[0]}"
print(drawn(of_a_worker))
"""


def test_workers_draw_their_own_random_numbers_and_their_forks_draw_as_usual():
    path = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, "-c", FORKED],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    of_workers, of_forks = (line.split() for line in run.stdout.splitlines())
    assert len(set(of_workers)) == 4
    assert len(set(of_forks)) == 1
