"""The equations against numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest


def test_steps_are_shared_out_and_rounded_up(c: ModuleType) -> None:
    assert c.Job(1.0, 10).steps(4) == 3
    with pytest.raises(ValueError, match="`workers` must be an integer >= 1. Received: workers=0"):
        c.Job(1.0, 10).steps(0)


def test_a_step_lies_between_those_that_were_measured(c: ModuleType) -> None:
    curve = c.Curve(((10.0, 1.0), (30.0, 5.0)))
    assert [curve.at(m) for m in (0, 10, 15, 30, 60)] == pytest.approx([1, 1, 2, 5, 10])
    assert c.Line(2.0, 0.5).at(10) == pytest.approx(7)


def test_a_broadcast_goes_down_a_tree_of_blocks(c: ModuleType) -> None:
    cluster = c.Cluster(bandwidth=1e6)
    assert c.broadcast_seconds(cluster, 1, 2e6) == pytest.approx(2)
    assert c.broadcast_seconds(cluster, 5, 2e6) == pytest.approx(2 + 3 * 2)
    assert c.broadcast_seconds(cluster, 5, 20e6) == pytest.approx(20 + 3 * 4.194304)


def test_rounds_by_hand(c: ModuleType, costs: Any) -> None:
    cluster = c.Cluster(bandwidth=10.0)
    epoch = c.rounds(costs, cluster, c.Job(100.0, 20), 4)
    assert epoch.compute == pytest.approx(5 * 0.1)
    assert epoch.worker == pytest.approx(0.02 * 100)
    assert epoch.fixed == pytest.approx(3 + 4 * 0.5)
    assert epoch.link == pytest.approx((100 + 2 * 100) / 10 + 4 * 100 / 10)
    assert epoch.driver == pytest.approx(4 * (0.001 + 0.004) * 100)
    assert epoch.seconds == pytest.approx(0.5 + 2 + 5 + 70 + 2)
    assert epoch.limit == "link"


def test_compressed_rounds_by_hand(c: ModuleType, costs: Any) -> None:
    epoch = c.rounds(costs, c.Cluster(bandwidth=10.0), c.Job(100.0, 20), 4, "half")
    assert epoch.worker == pytest.approx((0.02 + 0.03) * 100)
    assert epoch.link == pytest.approx(30 + 4 * 50 / 10)
    assert epoch.driver == pytest.approx(4 * (0.001 * 50 + 0.01 * 100 + 0.004 * 100))


def test_a_tree_sends_one_sum_per_group_to_the_driver(c: ModuleType, costs: Any) -> None:
    cluster, job = c.Cluster(bandwidth=10.0), c.Job(100.0, 20)
    epoch = c.tree(costs, cluster, job, 17, "half")
    groups, size = 5, 4
    assert epoch.fixed == pytest.approx(3 + 17 * 0.5 + 7 + groups * 0.5)
    assert epoch.link == pytest.approx((100 + 5 * 100) / 10 + (size * 50 + groups * 100) / 10)
    assert epoch.worker == pytest.approx(5 + size * (0.05 + 1 + 0.4))
    assert epoch.driver == pytest.approx(groups * (0.1 + 0.4))
    assert c.tree(costs, cluster, job, 15) == c.rounds(costs, cluster, job, 15)


def test_meetings_by_hand(c: ModuleType, costs: Any) -> None:
    cluster = c.Cluster(bandwidth=10.0, latency=0.01, driver_cores=2)
    epoch = c.meetings(costs, cluster, c.Job(100.0, 6), 3, "half")
    assert epoch.compute == pytest.approx(2 * 0.1)
    assert epoch.worker == pytest.approx(2 * (0.2 + 0.3 + 3 + 1 + 0.09 + 0.02))
    assert epoch.fixed == pytest.approx(11)
    assert epoch.link == pytest.approx(2 * 2 * 3 * 50 / 10 + 3 * 3 * 100 / 10)
    assert epoch.driver == pytest.approx(2 * (3 * 0.07 + 3 * (0.5 + 0.6) + 3))


def test_one_connection_is_no_faster_than_a_core_copies(c: ModuleType, costs: Any) -> None:
    slow = replace(costs, wire=0.5)
    cluster = c.Cluster(bandwidth=10.0, driver_cores=2)
    assert c.link_seconds(slow, cluster, 1, 100.0) == pytest.approx(50)
    assert c.link_seconds(slow, cluster, 4, 100.0) == pytest.approx(100)
    assert c.link_seconds(costs, cluster, 4, 100.0) == pytest.approx(40)


def test_workers_of_one_host_share_its_cores(c: ModuleType, costs: Any) -> None:
    shared, job = c.Cluster(cores=2), c.Job(100.0, 20)
    assert [shared.stretch(k) for k in (1, 2, 4)] == [1, 1, 2]
    assert c.rounds(costs, shared, job, 4).compute == pytest.approx(2 * 5 * 0.1)
    faster = replace(shared, speed=4.0)
    assert c.rounds(costs, faster, job, 4).compute == pytest.approx(0.25)


def test_memory_of_the_driver_by_hand(c: ModuleType) -> None:
    job = c.Job(10.0, 1)
    assert c.driver_bytes("rounds", job, 64, 1.0) == 66 * 10
    assert c.driver_bytes("rounds", job, 64, 0.5) == 64 * 15 + 20
    assert c.driver_bytes("tree", job, 64, 0.5) == (8 + 2) * 10
    assert c.driver_bytes("tree", job, 15, 1.0) == c.driver_bytes("rounds", job, 15, 1.0)
    assert c.driver_bytes("batch", job, 64, 1.0) == 130 * 10
    assert c.driver_bytes("batch", job, 64, 0.5) == 64 * 25 + 20


def test_what_closes_a_road(c: ModuleType) -> None:
    large = c.Job(4e9, 1)
    assert c.obstacle("rounds", large, 2, 1.0, 1e15) == "record"
    assert c.obstacle("rounds", large, 2, 0.25, 1e15) is None
    assert c.obstacle("tree", large, 16, 0.25, 1e15) == "record"
    assert c.obstacle("batch", large, 2, 1.0, 1e15) is None
    assert c.obstacle("batch", large, 2, 1.0, 20e9) == "memory"


@pytest.mark.parametrize("name", ["bandwidth", "driver_cores", "speed"])
def test_a_cluster_of_nothing_is_refused(c: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a number > 0. Received: {name}=0"):
        c.Cluster(**{name: 0})


def test_a_compression_that_was_not_measured_is_refused(c: ModuleType, costs: Any) -> None:
    with pytest.raises(ValueError, match="`codec` must be one of"):
        c.rounds(costs, c.Cluster(), c.Job(1.0, 1), 1, "zip")
