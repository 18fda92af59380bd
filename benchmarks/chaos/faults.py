"""Processes of a scenario and the signals for them, on a cluster of processes of one machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

MARK = "KSPARK_CHAOS"
"""Environment variable by which the processes of a scenario are known."""

FIND_SECONDS = 20.0

SIGNALS = {
    "kill a worker": signal.SIGKILL,
    "kill an executor": signal.SIGKILL,
    "stop a worker": signal.SIGSTOP,
    "decommission": signal.SIGPWR,
}


class Faults(Protocol):
    """What can happen to the processes of a scenario.

    A cluster of several hosts has the same methods, which look for processes on all of its hosts.
    """

    def workers(self) -> list[int]:
        """The Python workers that run tasks, in the order of their ids."""

    def executors(self) -> list[int]:
        """The JVMs of the executors."""

    def everything(self) -> list[int]:
        """All processes of the scenario that run."""

    def send(self, process: int, number: signal.Signals) -> bool:
        """Send a signal to a process of the scenario. Returns whether it was still there."""

    def fill_disk(self) -> None:
        """Fill the file system with Spark's local directories."""


class LocalCluster:
    """The processes of one machine that have a mark in their environment.

    Args:
        mark: String, the value of the environment variable `MARK`.
        folder: Path of Spark's local directories.
    """

    def __init__(self, mark: str, folder: Path) -> None:
        self._mark = f"{MARK}={mark}".encode()
        self._folder = folder

    def everything(self) -> list[int]:
        """See `Faults`."""
        own = os.getpid()
        found = (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
        return sorted(process for process in found if process != own and self._is_mine(process))

    def _is_mine(self, process: int) -> bool:
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            return self._mark in variables and state(process) != "Z"
        return False

    def executors(self) -> list[int]:
        """See `Faults`."""
        name = b"CoarseGrainedExecutorBackend"
        return [process for process in self.everything() if name in command(process)]

    def workers(self) -> list[int]:
        """See `Faults`. They are forks of a daemon, and so have its command."""
        return [
            process
            for process in self.everything()
            if b"daemon" in command(process) and command(parent(process)) == command(process)
        ]

    def send(self, process: int, number: signal.Signals) -> bool:
        """See `Faults`."""
        if self._is_mine(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
                return True
        return False

    def fill_disk(self) -> None:
        """See `Faults`."""
        with contextlib.suppress(OSError), open(self._folder / "filler", "wb") as stream:
            while True:
                stream.write(bytes(1 << 16))
                stream.flush()


def command(process: int) -> bytes:
    """The command line of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def parent(process: int) -> int:
    """The parent of a process; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def state(process: int) -> str:
    """The state of a process, such as `"S"`; `"Z"` if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def strike(faults: Faults, fault: str, pick: int, seconds: float) -> bool:
    """Let a fault happen that comes from outside of the fit.

    Returns:
        Boolean, whether it happened: the signal reached a process.
    """
    if fault == "disk full":
        faults.fill_disk()
        return True
    of_jvm = fault in ("kill an executor", "decommission")
    number = SIGNALS[fault]
    deadline = time.monotonic() + FIND_SECONDS
    while True:
        found = faults.executors() if of_jvm else faults.workers()
        process = found[pick % len(found)] if found else 0
        if found and faults.send(process, number):
            break
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    if number == signal.SIGSTOP:
        time.sleep(seconds)
        faults.send(process, signal.SIGCONT)
    return True


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int):
    """Mount a file system in memory while the block runs. Needs root."""
    options = f"size={megabytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
