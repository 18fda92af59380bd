"""The source distribution holds the whole project, so that its tests pass out of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def distributed(tmp_path_factory) -> set[str]:
    """Files that setuptools would pack, by `MANIFEST.in` and `setup.py`."""
    folder = tmp_path_factory.mktemp("egg")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=100)
    sources = folder / "kspark.egg-info" / "SOURCES.txt"
    return set(sources.read_text(encoding="utf-8").splitlines())


def files_of_the_project() -> set[str]:
    """What git tracks and is still there; what was packed, if this is an unpacked distribution."""
    if (PROJECT / ".git").exists():
        command = ["git", "ls-files", "-z"]
        done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=100)
        files = done.stdout.decode().rstrip("\0").split("\0")
    else:
        sources = PROJECT / "kspark.egg-info" / "SOURCES.txt"
        files = sources.read_text(encoding="utf-8").splitlines()
    return {f for f in files if (PROJECT / f).exists() and not f.startswith("kspark.egg-info/")}


def test_the_source_distribution_has_every_file_of_the_project(distributed):
    files = files_of_the_project()
    assert {"setup.py", "kspark/version.py", "tests/project/test_sdist.py"} <= files
    assert files - distributed == set()
