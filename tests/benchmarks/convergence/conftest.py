"""The files of the benchmark that need neither Keras nor Spark."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

Import = Callable[[str], ModuleType]


@pytest.fixture
def case(benchmark: Import) -> ModuleType:
    return benchmark("convergence_case")


@pytest.fixture
def data(benchmark: Import) -> ModuleType:
    return benchmark("convergence_data")


@pytest.fixture
def results(benchmark: Import) -> ModuleType:
    return benchmark("convergence_results")


@pytest.fixture
def claims(benchmark: Import) -> ModuleType:
    return benchmark("convergence_claims")
