"""Costs to predict with."""

from __future__ import annotations

import pytest

from benchmarks.scaling.costs import FILE, CodecCosts, Costs, Curve, Line, read
from benchmarks.scaling.equations import Cluster, Job
from benchmarks.scaling.roads import Study


@pytest.fixture
def costs() -> Costs:
    """Round numbers of different powers of ten, so that every term shows in a sum."""
    return Costs(
        machine="none",
        step=Curve(((1000.0, 0.1),)),
        round=Line(3.0, 0.02),
        task=Line(0.5, 0.001),
        stage=7.0,
        merge=0.004,
        mean=0.006,
        live_epoch=11.0,
        gradient=Line(0.2, 0.003),
        delta=Line(0.4, 0.005),
        message=0.09,
        message_driver=0.07,
        wire=0.0,
        lock=0.008,
        codecs={"none": CodecCosts(1.0, 0.0, 0.0), "half": CodecCosts(0.5, 0.03, 0.01)},
    )


@pytest.fixture
def study() -> Study:
    """The measured costs that the benchmark uses, and a model of 100 MB."""
    measured, _ = read(FILE)
    return Study(measured, Cluster(), Job(100e6, 100_000), frequency=50, memory=256e9)
