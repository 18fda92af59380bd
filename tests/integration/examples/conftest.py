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
from kspark.session import java

PROJECT = Path(__file__).resolve().parents[3]
SPARK_HOME = Path(pyspark.__file__).resolve().parent
TIMEOUT = 500.0
START_SECONDS = 90.0
STOP_SECONDS = 30.0

Run = Callable[..., str]


@pytest.fixture
def project() -> Path:
    """The directory that holds README.md and examples."""
    return PROJECT


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a user: this very kspark, no environment activated, no data."""
    for name in list(os.environ):
        if name.startswith(("PYSPARK_", "SPARK_", "KSPARK_", "VIRTUAL_ENV")):
            monkeypatch.delenv(name)
    programs = os.path.dirname(sys.executable)
    path = [part for part in os.environ["PATH"].split(os.pathsep) if part != programs]
    package = str(Path(kspark.__file__).resolve().parent.parent)
    python_path = [part for part in (package, os.environ.get("PYTHONPATH")) if part]
    own = {"PATH": os.pathsep.join(path), "PYTHONPATH": os.pathsep.join(python_path)}
    return {**os.environ, **own, "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture
def run(tmp_path: Path, variables: dict[str, str]) -> Run:
    """Run a command in an empty directory; a failure shows all it said. Returns its output.

    What it logs is kept apart: Spark's lines may begin in the middle of a printed one.
    """

    def run_command(*command: str | Path, **more: str) -> str:
        files = [tmp_path / "output.txt", tmp_path / "log.txt"]
        with files[0].open("w") as output, files[1].open("w") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=tmp_path,
                env={**variables, **more},
                stdout=output,
                stderr=log,
                start_new_session=True,
            )
            try:
                code: int | str = process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                code = f"no end after {TIMEOUT:g} s"
            finally:
                end_group(process)
        said, logged = (file.read_text(encoding="utf-8", errors="replace") for file in files)
        assert code == 0, f"{code}\n{said}\n{logged}"
        return said

    return run_command


@pytest.fixture
def run_python(run: Run) -> Run:
    """As `run`, for a script of this Python."""
    return lambda *arguments, **more: run(sys.executable, *arguments, **more)


def end_group(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process, and whatever it left running in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
            end_group(self._process)
            self._reader.join()
            self._process.stdout.close()


@pytest.fixture
def java_variables(variables: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment in which Spark's own programs start, on the Java that kspark finds."""
    found = java.environment(java.find_java(pyspark.__version__), tmp_path, quiet=True)
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
