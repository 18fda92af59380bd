"""The queue in front of the driver against closed forms."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest


def test_one_worker_waits_for_nobody(q: ModuleType) -> None:
    assert q.simulate(1, 2.0, (0.1, 0.2, 0.3), 5, spread=0.0) == pytest.approx(5 * 2.6)


def test_without_contention_all_are_as_fast_as_one(q: ModuleType) -> None:
    found = q.simulate(8, 1000.0, (0.1, 0.2, 0.3), 50)
    assert found == pytest.approx(50 * 1000.6, rel=0.03)


@pytest.mark.parametrize("slowest", [0, 1, 2])
def test_a_saturated_place_never_rests(q: ModuleType, slowest: int) -> None:
    places = [0.1, 0.1, 0.1]
    places[slowest] = 1.0
    found = q.simulate(100, 2.0, places, 20)
    assert found == pytest.approx(20 * 100 * 1.0, rel=0.01)


def test_two_workers_by_hand(q: ModuleType) -> None:
    # Both come at 1. The first is served from 1 to 4, the second from 4 to 7; they come again
    # at 5 and 8. The first is served from 7 to 10, the second from 10 to 13.
    assert q.simulate(2, 1.0, (3.0,), 2, spread=0.0) == pytest.approx(13)
    # At the second place the first is through at 2 + 3 = 5, and 8 after the second.
    assert q.simulate(2, 1.0, (1.0, 3.0), 1, spread=0.0) == pytest.approx(8)


@pytest.mark.parametrize("workers", [1, 3, 10, 40])
@pytest.mark.parametrize("think", [0.5, 5.0, 50.0])
def test_no_epoch_is_shorter_than_the_bounds(q: ModuleType, workers: int, think: float) -> None:
    places = (0.3, 0.5, 0.2)
    free, saturated = q.lower_bounds(workers, think, places, 20)
    found = q.simulate(workers, think, places, 20, spread=0.0)
    assert found >= max(free, saturated) * (1 - 1e-9)
    assert found <= free + saturated


@pytest.mark.parametrize(("name", "values"), [("workers", (0, 1)), ("exchanges", (1, 0))])
def test_a_queue_of_nobody_is_refused(q: ModuleType, name: str, values: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be an integer >= 1"):
        q.simulate(values[0], 1.0, (1.0,), values[1])


def test_places_by_hand(c: ModuleType, q: ModuleType, costs: Any) -> None:
    cluster, job = c.Cluster(bandwidth=10.0, driver_cores=4), c.Job(100.0, 20)
    half = costs.codecs["half"]
    assert q.places_of(costs, cluster, job, half, locked=True) == pytest.approx(
        (5, 0.07 + 0.25 + 0.8, 10)
    )
    assert q.places_of(costs, cluster, job, half, locked=False)[1] == pytest.approx(0.52)


def test_an_exchange_of_the_only_worker_by_hand(c: ModuleType, q: ModuleType, costs: Any) -> None:
    cluster, job = c.Cluster(bandwidth=10.0, latency=0.01, driver_cores=4), c.Job(100.0, 40)
    epoch = q.epoch_of_pushes(replace(costs, wire=0.2), cluster, job, 1, 10, "half")
    beside = 0.4 + 0.5 + 3 + 0.02 + 0.02 + 150 * (0.2 - 0.1)
    places = 5 + (0.07 + 0.25 + 0.8) + 10
    assert epoch.compute == pytest.approx(4)
    assert epoch.worker == pytest.approx(4 * beside)
    # The time between exchanges varies: the sum of four is off by a twentieth at most.
    assert epoch.link == pytest.approx(4 * places, abs=0.1 * 4 * (1 + beside))
    assert epoch.fixed == pytest.approx(11)
    assert epoch.limit == "worker"


def test_an_epoch_of_many_exchanges_is_that_many_times_as_long(
    c: ModuleType, q: ModuleType, costs: Any
) -> None:
    def seconds(batches: int) -> float:
        found = q.epoch_of_pushes(costs, c.Cluster(bandwidth=10.0), c.Job(100.0, batches), 8, 1)
        return float(found.seconds - found.fixed)

    assert seconds(8 * 640) == pytest.approx(10 * seconds(8 * 64))


def test_shared_cores_bound_the_pushes(c: ModuleType, q: ModuleType, costs: Any) -> None:
    cluster = c.Cluster(float("inf"), 0.0, driver_cores=1, cores=2)
    epoch = q.epoch_of_pushes(costs, cluster, c.Job(0.0, 40), 4, 1)
    beside = 2 * 0.4 + 0.02
    assert epoch.seconds - epoch.fixed >= 10 * (0.2 + beside + 4 * 0.07 / 2) * (1 - 1e-9)
    with pytest.raises(ValueError, match="`frequency` must be an integer >= 1"):
        q.epoch_of_pushes(costs, cluster, c.Job(0.0, 40), 4, 0)
