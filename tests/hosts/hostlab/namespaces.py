"""Hosts: processes with a network, a name, folders and process numbers of their own.

A host is a set of Linux namespaces without names. They end with their first process, and that ends
with the process that made the host, also if that is killed. So nothing can be left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PROGRAMS = ("unshare", "nsenter", "mount", "hostname", "ip", "tc")
"""What must be installed: util-linux, hostname and iproute2."""

PROBE = (
    "mount -t tmpfs tmpfs /mnt && ip link add one type veth peer name two && "
    "ip link add three type bridge"
)
"""What root may do in namespaces, unless a container forbids it or the kernel lacks it."""

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")


def missing_requirement() -> str | None:
    """Return what this machine lacks for hosts, as a sentence; `None` if it lacks nothing."""
    if not sys.platform.startswith("linux"):
        return "Hosts are Linux namespaces."
    if os.geteuid() != 0:
        return "Only root can make hosts (namespaces, network devices)."
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"Not installed: {', '.join(missing)} (util-linux, hostname, iproute2)."
    made = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", "sh", "-c", PROBE],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"Hosts cannot be made: {made.stderr.strip()}" if made.returncode else None


@dataclass
class Host:
    """A host that runs.

    Attributes:
        name: String, its name at the start.
        pid: Integer, its first process, as this process sees it.
        process: `Popen` of the process around it, whose stdin keeps the host alive.
    """

    name: str
    pid: int
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, name: str, hosts_file: Path, shown: Sequence[str] = ()) -> Host:
        """Start a host, without any network device but `lo`.

        Args:
            name: String.
            hosts_file: `Path` of the file with all hosts' addresses.
            shown: Sequence of folders that the host shares with this machine, also if they are
                below one of which each host has its own.
        """
        settings = {"name": name, "hosts_file": str(hosts_file), "shown": list(shown)}
        process = subprocess.Popen(
            [
                *("unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, str(Path(__file__).with_name("init.py")), json.dumps(settings)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests only.
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"Host {name} did not start.")
        (pid,) = (p for p in all_processes() if parent_of(p) == process.pid)
        host = cls(name, pid, process)
        host.run("ip", "link", "set", "lo", "up")
        return host

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs another one on the host."""
        return ["nsenter", "--target", str(self.pid), *NAMESPACES, "--", *arguments]

    def run(self, *arguments: str) -> str:
        """Run a command on the host, and return what it writes.

        Raises:
            RuntimeError: If it fails.
        """
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def start_program(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: IO[Any], **more: Any
    ) -> subprocess.Popen[str]:
        """Start a program on the host. It writes its errors, and by default all, to a log."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | more
        return subprocess.Popen(
            self.command(*arguments),
            env=dict(environment),
            start_new_session=True,
            text=True,
            **streams,
        )

    def processes(self, *words: str) -> list[int]:
        """Return the processes of the host with one of the words in their command line."""
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for pid in all_processes():
            with contextlib.suppress(OSError):
                if pid == self.pid or os.readlink(f"/proc/{pid}/ns/pid") != mine:
                    continue
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if any(word in line for word in words):
                    found.append(pid)
        return found

    def send(self, number: signal.Signals, *words: str) -> int:
        """Send a signal to processes, see `processes`, and return how many they were."""
        found = self.processes(*words)
        send(number, found)
        return len(found)

    def rename(self, name: str) -> None:
        """Give the host another name. Its address stays."""
        self.run("hostname", name)

    def files(self) -> Path:
        """Return the host's root directory, as this process sees it."""
        return Path(f"/proc/{self.pid}/root")

    def end(self) -> None:
        """End all processes of the host, and with them its network and its files."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()  # Its only child gets SIGKILL, too.
            self.process.wait(10)


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes, some of which may have ended meanwhile."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def all_processes() -> Iterator[int]:
    """Yield the numbers of all processes that this process sees."""
    return (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())


def parent_of(pid: int) -> int | None:
    """Return the parent of a process; `None` if the process has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None
