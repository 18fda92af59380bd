"""Predictions for any costs, and the tables and the picture made from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scaling.costs import FILE, Costs, Curve, Line, read
from benchmarks.scaling.equations import Cluster, Job
from benchmarks.scaling.roads import ROADS, Study, efficiency, predict, reach
from benchmarks.scaling.tables import check_table, reach_table

COUNTS = (1, 2, 4, 16, 64, 256, 1024)


@pytest.mark.parametrize("road", ROADS)
def test_an_epoch_is_no_slower_with_a_faster_network_or_a_smaller_model(
    study: Study, road: str
) -> None:
    for workers in COUNTS:
        slow = predict(study, road, workers).seconds
        faster = replace(study, cluster=Cluster(bandwidth=12.5e9))
        smaller = replace(study, job=Job(1e6, 100_000))
        assert predict(faster, road, workers).seconds <= slow * 1.005
        assert predict(smaller, road, workers).seconds <= slow * 1.005


@pytest.mark.parametrize("road", ROADS)
def test_no_efficiency_is_above_one(study: Study, road: str) -> None:
    for workers in COUNTS:
        assert efficiency(study, predict(study, road, workers), workers) <= 1


def test_the_drivers_link_limits_every_road_but_groups(study: Study) -> None:
    m, seconds = study.job.weight_bytes, 1 / study.cluster.bandwidth
    for workers in (256, 1024):
        least = workers * m * seconds
        assert predict(study, "rounds", workers).link >= least
        assert predict(study, "batch", workers).link >= 2 * study.job.steps(workers) * least
        pushes = predict(study, "asynchronous", workers).seconds
        assert pushes >= -(-study.job.steps(workers) // 50) * least
        assert predict(study, "groups", workers).link < least / 2


def test_more_frequent_pushes_take_longer(study: Study) -> None:
    often = replace(study, frequency=10)
    for workers in COUNTS[1:]:
        assert (
            predict(often, "asynchronous", workers).seconds
            > predict(study, "asynchronous", workers).seconds
        )


def test_an_unknown_road_is_refused(study: Study) -> None:
    with pytest.raises(ValueError, match="`road` must be one of"):
        predict(study, "ring", 2)


def test_the_useful_number_of_workers_matches_a_calculation_by_hand(costs: Costs) -> None:
    # A step takes 1 s, and moving a gradient to the driver and back 2 x 0.05 s per worker. With
    # k workers, an epoch of n batches takes n / k * (1 + k / 10), and nothing else costs time.
    free = replace(
        costs,
        step=Curve(((1.0, 1.0),)),
        gradient=Line(0.0, 0.0),
        mean=0.0,
        live_epoch=0.0,
        message=0.0,
        message_driver=0.0,
    )
    cluster = Cluster(bandwidth=1.0, latency=0.0)
    study = Study(free, cluster, Job(0.05, 64_000), frequency=1, memory=0.05 * 40)
    found = reach(study, "batch", "none", (2, 4, 8, 16, 32))
    assert (found.half, found.best, found.limit) == (8, 32, "link")
    assert found.speed_up == pytest.approx(32 / 4.2, rel=1e-3)
    assert found.obstacle == ("memory", 32)


def test_costs_are_read_back_from_their_file(costs: Costs, tmp_path: Path) -> None:
    document = {"costs": costs.to_dict(), "checks": [{"road": "batch"}]}
    (tmp_path / "costs.json").write_text(json.dumps(document), encoding="utf-8")
    assert read(tmp_path / "costs.json") == (costs, [{"road": "batch"}])


def test_the_tables_have_a_row_per_road_and_codec_and_per_check(study: Study) -> None:
    rows = reach_table(study, [1.0, 10000.0])
    assert len(rows) == 2 + 4 * len(study.costs.codecs) + 1
    assert all(line.count("|") == 4 for line in rows)
    _, checks = read(FILE)
    assert {check["workers"] for check in checks} == {1, 2, 4}
    assert len(check_table(study.costs, checks)) == 2 + len(checks)


def test_the_picture_is_saved(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.scaling.plot import draw

    draw(tmp_path / "scaling.png", study, [1.0], [1.0], 64)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
