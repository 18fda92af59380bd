"""The equations compared with numbers calculated by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scaling.costs import Costs, Curve, Line
from benchmarks.scaling.equations import (
    Cluster,
    Job,
    broadcast_seconds,
    driver_bytes,
    grouped_rounds,
    link_seconds,
    meetings,
    obstacle,
    rounds,
)


def test_batches_are_divided_among_workers_and_rounded_up() -> None:
    assert Job(1.0, 10).steps(4) == 3
    with pytest.raises(ValueError, match="`workers` must be an integer >= 1. Received: workers=0"):
        Job(1.0, 10).steps(0)


def test_seconds_between_measured_points_are_interpolated() -> None:
    curve = Curve(((10.0, 1.0), (30.0, 5.0)))
    assert [curve.at(m) for m in (0, 10, 15, 30, 60)] == pytest.approx([1, 1, 2, 5, 10])
    assert Line(2.0, 0.5).at(10) == pytest.approx(7)


def test_a_broadcast_takes_the_weights_and_a_block_per_level() -> None:
    cluster = Cluster(bandwidth=1e6)
    assert broadcast_seconds(cluster, 1, 2e6) == pytest.approx(2)
    assert broadcast_seconds(cluster, 5, 2e6) == pytest.approx(2 + 3 * 2)
    assert broadcast_seconds(cluster, 5, 20e6) == pytest.approx(20 + 3 * 4.194304)


def test_rounds_match_a_calculation_by_hand(costs: Costs) -> None:
    cluster = Cluster(bandwidth=10.0)
    epoch = rounds(costs, cluster, Job(100.0, 20), 4)
    assert epoch.compute == pytest.approx(5 * 0.1)
    assert epoch.worker == pytest.approx(0.02 * 100)
    assert epoch.fixed == pytest.approx(3 + 4 * 0.5)
    assert epoch.link == pytest.approx((100 + 2 * 100) / 10 + 4 * 100 / 10)
    assert epoch.driver == pytest.approx(4 * (0.001 + 0.004) * 100)
    assert epoch.seconds == pytest.approx(0.5 + 2 + 5 + 70 + 2)
    assert epoch.limit == "link"


def test_compressed_rounds_match_a_calculation_by_hand(costs: Costs) -> None:
    epoch = rounds(costs, Cluster(bandwidth=10.0), Job(100.0, 20), 4, "half")
    assert epoch.worker == pytest.approx((0.02 + 0.03) * 100)
    assert epoch.link == pytest.approx(30 + 4 * 50 / 10)
    assert epoch.driver == pytest.approx(4 * (0.001 * 50 + 0.01 * 100 + 0.004 * 100))


def test_each_group_sends_one_sum_to_the_driver(costs: Costs) -> None:
    cluster, job = Cluster(bandwidth=10.0), Job(100.0, 20)
    epoch = grouped_rounds(costs, cluster, job, 17, "half")
    groups, size = 5, 4
    assert epoch.fixed == pytest.approx(3 + 17 * 0.5 + 7 + groups * 0.5)
    assert epoch.link == pytest.approx((100 + 5 * 100) / 10 + (size * 50 + groups * 100) / 10)
    assert epoch.worker == pytest.approx(5 + size * (0.05 + 1 + 0.4))
    assert epoch.driver == pytest.approx(groups * (0.1 + 0.4))
    assert grouped_rounds(costs, cluster, job, 15) == rounds(costs, cluster, job, 15)


def test_meetings_match_a_calculation_by_hand(costs: Costs) -> None:
    cluster = Cluster(bandwidth=10.0, latency=0.01, driver_cores=2)
    epoch = meetings(costs, cluster, Job(100.0, 6), 3, "half")
    assert epoch.compute == pytest.approx(2 * 0.1)
    assert epoch.worker == pytest.approx(2 * (0.2 + 0.3 + 3 + 1 + 0.09 + 0.02))
    assert epoch.fixed == pytest.approx(11)
    assert epoch.link == pytest.approx(2 * 2 * 3 * 50 / 10 + 3 * 3 * 100 / 10)
    assert epoch.driver == pytest.approx(2 * (3 * 0.07 + 3 * (0.5 + 0.6) + 3))


def test_one_connection_is_limited_by_one_core(costs: Costs) -> None:
    slow = replace(costs, wire=0.5)
    cluster = Cluster(bandwidth=10.0, driver_cores=2)
    assert link_seconds(slow, cluster, 1, 100.0) == pytest.approx(50)
    assert link_seconds(slow, cluster, 4, 100.0) == pytest.approx(100)
    assert link_seconds(costs, cluster, 4, 100.0) == pytest.approx(40)


def test_workers_on_one_host_share_its_cores(costs: Costs) -> None:
    shared, job = Cluster(cores=2), Job(100.0, 20)
    assert [shared.stretch(k) for k in (1, 2, 4)] == [1, 1, 2]
    assert rounds(costs, shared, job, 4).compute == pytest.approx(2 * 5 * 0.1)
    faster = replace(shared, speed=4.0)
    assert rounds(costs, faster, job, 4).compute == pytest.approx(0.25)


def test_the_drivers_memory_matches_a_calculation_by_hand() -> None:
    job = Job(10.0, 1)
    assert driver_bytes("rounds", job, 64, 1.0) == 66 * 10
    assert driver_bytes("rounds", job, 64, 0.5) == 64 * 15 + 20
    assert driver_bytes("groups", job, 64, 0.5) == (8 + 2) * 10
    assert driver_bytes("groups", job, 15, 1.0) == driver_bytes("rounds", job, 15, 1.0)
    assert driver_bytes("batch", job, 64, 1.0) == 130 * 10
    assert driver_bytes("batch", job, 64, 0.5) == 64 * 25 + 20


def test_large_records_and_little_memory_are_obstacles() -> None:
    large = Job(4e9, 1)
    assert obstacle("rounds", large, 2, 1.0, 1e15) == "record"
    assert obstacle("rounds", large, 2, 0.25, 1e15) is None
    assert obstacle("groups", large, 16, 0.25, 1e15) == "record"
    assert obstacle("batch", large, 2, 1.0, 1e15) is None
    assert obstacle("batch", large, 2, 1.0, 20e9) == "memory"


@pytest.mark.parametrize("name", ["bandwidth", "driver_cores", "speed"])
def test_a_cluster_without_a_resource_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a number > 0. Received: {name}=0"):
        Cluster(**{name: 0})


def test_a_compression_that_was_not_measured_is_refused(costs: Costs) -> None:
    with pytest.raises(ValueError, match="`codec` must be one of"):
        rounds(costs, Cluster(), Job(1.0, 1), 1, "zip")
