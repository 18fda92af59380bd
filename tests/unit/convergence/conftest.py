"""The benchmark's files, which are scripts beside each other and no package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
MODULES = ("mnist", "convergence_case", "convergence_data", "convergence_results")
MODULES = (*MODULES, "convergence_claims")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """Those that need neither Keras nor Spark, by name."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture
def case(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["convergence_case"]


@pytest.fixture
def data(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["convergence_data"]


@pytest.fixture
def results(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["convergence_results"]


@pytest.fixture
def claims(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["convergence_claims"]
