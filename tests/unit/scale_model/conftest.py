"""The benchmark's files, which are scripts beside each other and no package."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
MODULES = ("scale_costs", "scale_queue", "scale_roads", "scale_model")
LATER = ("scale_plot", "scale_measure", "scale_parts", "aggregator", "training_case", "mnist")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """Those that need neither Keras nor matplotlib, by name."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in (*MODULES, *LATER):
            sys.modules.pop(name, None)


@pytest.fixture
def c(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["scale_costs"]


@pytest.fixture
def q(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["scale_queue"]


@pytest.fixture
def r(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["scale_roads"]


@pytest.fixture
def costs(c: ModuleType) -> Any:
    """Round numbers, each of another power of ten, so that every term shows in a sum."""
    return c.Costs(
        machine="none",
        step=c.Curve(((1000.0, 0.1),)),
        round=c.Line(3.0, 0.02),
        task=c.Line(0.5, 0.001),
        stage=7.0,
        merge=0.004,
        mean=0.006,
        live_epoch=11.0,
        gradient=c.Line(0.2, 0.003),
        delta=c.Line(0.4, 0.005),
        message=0.09,
        message_driver=0.07,
        wire=0.0,
        lock=0.008,
        codecs={"none": c.CodecCosts(1.0, 0.0, 0.0), "half": c.CodecCosts(0.5, 0.03, 0.01)},
    )


@pytest.fixture
def study(c: ModuleType, r: ModuleType) -> Any:
    """The measured costs that the benchmark uses."""
    document = json.loads((BENCHMARKS / "scale_costs.json").read_text(encoding="utf-8"))
    measured = c.Costs.from_dict(document["costs"])
    return r.Study(measured, c.Cluster(), c.Job(100e6, 100_000), frequency=50, memory=256e9)


@pytest.fixture
def measuring(modules: dict[str, ModuleType]) -> ModuleType:
    return importlib.import_module("scale_measure")
