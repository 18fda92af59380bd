"""The files of the benchmark, and costs for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
Import = Callable[[str], ModuleType]


@pytest.fixture
def c(benchmark: Import) -> ModuleType:
    return benchmark("scale_costs")


@pytest.fixture
def q(benchmark: Import) -> ModuleType:
    return benchmark("scale_queue")


@pytest.fixture
def r(benchmark: Import) -> ModuleType:
    return benchmark("scale_roads")


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
def measuring(benchmark: Import) -> ModuleType:
    return benchmark("scale_measure")
