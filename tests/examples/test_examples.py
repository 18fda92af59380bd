"""Every example runs to its end, as a user starts it: without an activated environment."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def files(pattern):
    return sorted(path.name for path in EXAMPLES.glob(pattern))


@pytest.fixture(autouse=True)
def user_environment(monkeypatch):
    """No environment is active: its programs are not on the `PATH`."""
    here = os.path.dirname(sys.executable)
    outside = [part for part in os.environ["PATH"].split(os.pathsep) if part != here]
    monkeypatch.setenv("PATH", os.pathsep.join(outside))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)


@pytest.mark.parametrize("name", files("*.py"))
def test_script(name, tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.strip()


@pytest.mark.parametrize("name", files("*.ipynb"))
def test_notebook(name, tmp_path):
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    NotebookClient(
        notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute()
