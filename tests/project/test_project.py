"""Facts that are written in two places agree."""

import re
from importlib.metadata import version
from pathlib import Path

import kspark
from kspark.session.java import REQUIREMENT

ROOT = Path(__file__).parents[2]


def test_ci_runs_the_test_command_of_the_readme():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command.endswith("bin/tox")
    assert f"\n{command}\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_package_reports_its_installed_version():
    installed = version("kspark")
    assert kspark.__version__ == installed
    assert re.fullmatch(r"\d+\.\d+\.\d+", installed)


def test_pre_commit_runs_the_linters_of_tox_in_the_same_versions():
    pin = re.compile(r"\b([a-z]\w+)==([\w.]+)")
    lint = (ROOT / "tox.ini").read_text(encoding="utf-8").split("[testenv:lint]")[1].split("\n[")[0]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(pin.findall(hooks)) == set(pin.findall(lint))
    assert {name for name, _ in pin.findall(lint)} >= {"codespell", "ruff"}


def test_the_oldest_environment_pins_the_lower_bounds_of_setup_py():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    bounds = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)', setup))
    constraints = (ROOT / "tests" / "constraints-oldest.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", constraints, re.MULTILINE))
    assert bounds.keys() - pins.keys() == {"setuptools", "torch"}
    for name, pin in pins.items():
        assert release(pin) == release(bounds[name]), name


def release(version: str) -> list[int]:
    """Numbers of a version without the zeros at its end: 2.0 is 2."""
    numbers = [int(number) for number in version.split(".")]
    while numbers[-1] == 0:
        numbers.pop()
    return numbers


def test_the_error_without_java_names_the_package_of_the_extra():
    assert f'"java": ["{REQUIREMENT}"]' in (ROOT / "setup.py").read_text(encoding="utf-8")


def test_the_folders_of_the_unit_tests_are_those_of_the_library():
    library = ROOT / "kspark"
    tests = ROOT / "tests" / "unit"
    for folder in (path.parent.relative_to(tests) for path in tests.rglob("test_*.py")):
        module = library / folder
        assert module.is_dir() or module.with_suffix(".py").is_file(), folder
    assert list(tests.glob("test_*.py")) == []


def test_keras_keeps_the_classes_of_test_modules_apart():
    """All tests may run in one process, in which the last class of a name takes its place."""
    mark = re.compile(r'register_keras_serializable\("([^"]+)"\)\n(?:class|def) (\w+)')
    modules = (ROOT / "tests" / "integration").rglob("*.py")
    names = [name for path in modules for name in mark.findall(path.read_text(encoding="utf-8"))]
    assert ("tests.groups", "DiesOnce") in names
    assert len(names) == len(set(names))
