"""What must hold for any costs, and what the command makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

COUNTS = (1, 2, 4, 16, 64, 256, 1024)


@pytest.mark.parametrize("road", ["rounds", "tree", "batch", "asynchronous", "hogwild"])
def test_a_faster_network_or_a_smaller_model_is_no_slower(
    c: ModuleType, r: ModuleType, study: Any, road: str
) -> None:
    for workers in COUNTS:
        slow = r.predict(study, road, workers).seconds
        faster = replace(study, cluster=c.Cluster(bandwidth=12.5e9))
        smaller = replace(study, job=c.Job(1e6, 100_000))
        assert r.predict(faster, road, workers).seconds <= slow * 1.005
        assert r.predict(smaller, road, workers).seconds <= slow * 1.005


@pytest.mark.parametrize("road", ["rounds", "tree", "batch", "asynchronous", "hogwild"])
def test_no_road_is_faster_than_perfect(r: ModuleType, study: Any, road: str) -> None:
    for workers in COUNTS:
        assert r.efficiency(study, r.predict(study, road, workers), workers) <= 1


def test_the_drivers_link_bounds_every_road_but_the_tree(r: ModuleType, study: Any) -> None:
    m, seconds = study.job.weight_bytes, 1 / study.cluster.bandwidth
    for workers in (256, 1024):
        least = workers * m * seconds
        assert r.predict(study, "rounds", workers).link >= least
        assert r.predict(study, "batch", workers).link >= 2 * study.job.steps(workers) * least
        pushes = r.predict(study, "asynchronous", workers).seconds
        assert pushes >= -(-study.job.steps(workers) // 50) * least
        assert r.predict(study, "tree", workers).link < least / 2


def test_more_frequent_pushes_take_longer(r: ModuleType, study: Any) -> None:
    often = replace(study, frequency=10)
    for workers in COUNTS[1:]:
        assert (
            r.predict(often, "asynchronous", workers).seconds
            > r.predict(study, "asynchronous", workers).seconds
        )


def test_a_road_that_is_not_there_is_refused(r: ModuleType, study: Any) -> None:
    with pytest.raises(ValueError, match="`road` must be one of"):
        r.predict(study, "ring", 2)


def test_reach_by_hand(c: ModuleType, r: ModuleType, costs: Any) -> None:
    # A step takes 1 s, a gradient's way to the driver and back 2 x 0.05 s per worker: with k
    # workers an epoch of 64 batches is 64 / k * (1 + k / 10), without anything else.
    free = replace(
        costs,
        step=c.Curve(((1.0, 1.0),)),
        gradient=c.Line(0.0, 0.0),
        mean=0.0,
        live_epoch=0.0,
        message=0.0,
        message_driver=0.0,
    )
    cluster = c.Cluster(bandwidth=1.0, latency=0.0)
    study = r.Study(free, cluster, c.Job(0.05, 64_000), frequency=1, memory=0.05 * 40)
    found = r.reach(study, "batch", "none", (2, 4, 8, 16, 32))
    assert (found.half, found.best, found.limit) == (8, 32, "link")
    assert found.speed_up == pytest.approx(32 / 4.2, rel=1e-3)
    assert found.barred == ("memory", 32)


def test_costs_survive_their_file(
    benchmark: Callable[[str], ModuleType], costs: Any, tmp_path: Path
) -> None:
    model = benchmark("scale_model")
    document = {"costs": costs.to_dict(), "checks": [{"road": "batch"}]}
    (tmp_path / "costs.json").write_text(json.dumps(document), encoding="utf-8")
    assert model.read(tmp_path / "costs.json") == (costs, [{"road": "batch"}])


def test_the_tables_hold_every_way(benchmark: Callable[[str], ModuleType], study: Any) -> None:
    model = benchmark("scale_model")
    rows = model.reach_table(study, [1.0, 10000.0])
    assert len(rows) == 2 + 4 * len(study.costs.codecs) + 1
    assert all(line.count("|") == 4 for line in rows)
    checks = model.read(model.HERE / "scale_costs.json")[1]
    assert {check["workers"] for check in checks} == {1, 2, 4}
    assert len(model.check_table(study.costs, checks)) == 2 + len(checks)


def test_the_picture_is_saved(
    benchmark: Callable[[str], ModuleType], study: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    plot = benchmark("scale_plot")
    plot.draw(tmp_path / "scaling.png", study, [1.0], [1.0], 64)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
