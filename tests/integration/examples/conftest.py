"""Examples run as users run them: in a process of their own, in an empty directory."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyspark
import pytest

import kspark
from kspark import java

PROJECT = Path(__file__).resolve().parents[3]
SPARK_HOME = Path(pyspark.__file__).resolve().parent
TIMEOUT = 300.0
START_SECONDS = 90.0
STOP_SECONDS = 30.0

Run = Callable[..., str]


@pytest.fixture
def project() -> Path:
    """The directory that holds README.md and examples."""
    return PROJECT


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of an example: this very kspark, no data, nothing of this test run."""
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "PYSPARK_GATEWAY_PORT", "SPARK_HOME"):
        monkeypatch.delenv(name, raising=False)
    own = str(Path(kspark.__file__).resolve().parent.parent)
    path = os.pathsep.join(p for p in (own, os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture
def run(tmp_path: Path, variables: dict[str, str]) -> Run:
    """Run a command in an empty directory; a failure shows all it said. Returns its output."""

    def run_command(*command: str | Path, **more: str) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env={**variables, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run_command


@pytest.fixture
def run_python(run: Run) -> Run:
    """As `run`, for a script of this Python."""
    return lambda *arguments, **more: run(sys.executable, *arguments, **more)


class Daemon:
    """A Spark daemon in a process group of its own, and what it logs.

    Leaving the block ends the whole group: a worker's executors are in it.
    """

    def __init__(self, arguments: list[str], variables: dict[str, str], ready: str) -> None:
        self.lines: list[str] = []
        self.found: re.Match[str] | None = None
        self._ready = re.compile(ready)
        self._seen = threading.Event()
        self._process = subprocess.Popen(
            [str(SPARK_HOME / "bin" / "spark-class"), *arguments],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line)
            self.found = self.found or self._ready.search(line)
            if self.found:
                self._seen.set()
        self._seen.set()

    def wait(self) -> re.Match[str]:
        """What the daemon says when it is ready."""
        self._seen.wait(START_SECONDS)
        assert self.found, "".join(self.lines)
        return self.found

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(STOP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()


@pytest.fixture
def java_variables(variables: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment in which Spark's own programs start, on the Java that kspark finds."""
    found = java.environment(java.find_java(pyspark.__version__), tmp_path)
    own = {"SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
    both = {**variables, **found, **own}
    return {name: value for name, value in both.items() if value is not None}


@pytest.fixture
def standalone_master(java_variables: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The URL of a standalone cluster of one worker with two cores."""
    files = {"SPARK_LOCAL_DIRS": str(tmp_path / "spark")}
    address = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
    master = ["org.apache.spark.deploy.master.Master", *address]
    worker = ["org.apache.spark.deploy.worker.Worker", *address, "--cores", "2"]
    worker += ["--memory", "1g", "--work-dir", str(tmp_path / "work")]
    with Daemon(master, java_variables, r"Starting Spark master at (spark://\S+)") as daemon:
        url = daemon.wait()[1]
        variables = {**java_variables, **files}
        with Daemon([*worker, url], variables, "Successfully registered with master") as registered:
            registered.wait()
            yield url
