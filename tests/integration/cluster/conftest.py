"""Fixtures of the tests on executors that are processes of their own."""

import contextlib
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def executors():
    """A function that lists the executors of this process. Their workers may have other parents."""
    return executors_of_this_process


def executors_of_this_process():
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            runs_executor = b"CoarseGrainedExecutorBackend" in (folder / "cmdline").read_bytes()
            if runs_executor and os.getpid() in ancestors(int(folder.name)):
                found.append(int(folder.name))
    return sorted(found)


def ancestors(process):
    while process > 1:
        state = Path(f"/proc/{process}/stat").read_text()
        process = int(state.rpartition(")")[2].split()[1])
        yield process
