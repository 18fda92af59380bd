"""What is written twice says the same."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import kspark
from kspark.session.java import REQUIREMENT

ROOT = Path(__file__).parents[2]


def test_ci_runs_the_test_command_of_the_readme():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command.endswith("bin/tox")
    assert f"\n{command}\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_version_of_the_installed_package():
    try:
        installed = version("kspark")
    except PackageNotFoundError:
        pytest.skip("kspark is not installed here")
    assert kspark.__version__ == installed
    assert re.fullmatch(r"\d+\.\d+\.\d+", installed)


def test_the_java_that_an_error_names_is_that_of_the_extra():
    assert f'"java": ["{REQUIREMENT}"]' in (ROOT / "setup.py").read_text(encoding="utf-8")
