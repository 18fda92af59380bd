"""The simulated queue compared with its limits and with numbers calculated by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scaling.costs import Costs
from benchmarks.scaling.equations import Cluster, Job
from benchmarks.scaling.queue import epoch_of_pushes, simulate, stations_of


def test_a_single_worker_never_waits() -> None:
    assert simulate(1, 2.0, (0.1, 0.2, 0.3), 5, spread=0.0) == pytest.approx(5 * 2.6)


def test_workers_without_contention_are_as_fast_as_one() -> None:
    found = simulate(8, 1000.0, (0.1, 0.2, 0.3), 50)
    assert found == pytest.approx(50 * 1000.6, rel=0.03)


@pytest.mark.parametrize("slowest", [0, 1, 2])
def test_a_saturated_station_is_never_idle(slowest: int) -> None:
    stations = [0.1, 0.1, 0.1]
    stations[slowest] = 1.0
    found = simulate(100, 2.0, stations, 20)
    assert found == pytest.approx(20 * 100 * 1.0, rel=0.01)


def test_two_workers_match_a_simulation_by_hand() -> None:
    # Both arrive at 1. The first is served from 1 to 4, the second from 4 to 7. They arrive
    # again at 5 and 8. The first is served from 7 to 10, the second from 10 to 13.
    assert simulate(2, 1.0, (3.0,), 2, spread=0.0) == pytest.approx(13)
    # The first leaves the second station at 2 + 3 = 5, the second worker at 5 + 3 = 8.
    assert simulate(2, 1.0, (1.0, 3.0), 1, spread=0.0) == pytest.approx(8)


@pytest.mark.parametrize("workers", [1, 3, 10, 40])
@pytest.mark.parametrize("think", [0.5, 5.0, 50.0])
def test_no_epoch_is_shorter_than_the_limits(workers: int, think: float) -> None:
    stations = (0.3, 0.5, 0.2)
    free = 20 * (think + sum(stations))
    saturated = 20 * workers * max(stations)
    found = simulate(workers, think, stations, 20, spread=0.0)
    assert found >= max(free, saturated) * (1 - 1e-9)
    assert found <= free + saturated


@pytest.mark.parametrize(("name", "values"), [("workers", (0, 1)), ("exchanges", (1, 0))])
def test_a_queue_without_workers_or_exchanges_is_refused(
    name: str, values: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be an integer >= 1"):
        simulate(values[0], 1.0, (1.0,), values[1])


def test_the_stations_match_a_calculation_by_hand(costs: Costs) -> None:
    cluster, job = Cluster(bandwidth=10.0, driver_cores=4), Job(100.0, 20)
    half = costs.codecs["half"]
    assert stations_of(costs, cluster, job, half, locked=True) == pytest.approx(
        (5, 0.07 + 0.25 + 0.8, 10)
    )
    assert stations_of(costs, cluster, job, half, locked=False)[1] == pytest.approx(0.52)


def test_the_exchanges_of_a_single_worker_match_a_calculation_by_hand(costs: Costs) -> None:
    cluster, job = Cluster(bandwidth=10.0, latency=0.01, driver_cores=4), Job(100.0, 40)
    epoch = epoch_of_pushes(replace(costs, wire=0.2), cluster, job, 1, 10, "half")
    unshared = 0.4 + 0.5 + 3 + 0.02 + 0.02 + 150 * (0.2 - 0.1)
    stations = 5 + (0.07 + 0.25 + 0.8) + 10
    assert epoch.compute == pytest.approx(4)
    assert epoch.worker == pytest.approx(4 * unshared)
    # The time between exchanges varies: the sum of four is off by a twentieth at most.
    assert epoch.link == pytest.approx(4 * stations, abs=0.1 * 4 * (1 + unshared))
    assert epoch.fixed == pytest.approx(11)
    assert epoch.limit == "worker"


def test_a_long_epoch_is_extrapolated_from_a_short_one(costs: Costs) -> None:
    def seconds(batches: int) -> float:
        found = epoch_of_pushes(costs, Cluster(bandwidth=10.0), Job(100.0, batches), 8, 1)
        return float(found.seconds - found.fixed)

    assert seconds(8 * 640) == pytest.approx(10 * seconds(8 * 64))


def test_an_epoch_takes_at_least_the_work_of_the_shared_cores(costs: Costs) -> None:
    cluster = Cluster(float("inf"), 0.0, driver_cores=1, cores=2)
    epoch = epoch_of_pushes(costs, cluster, Job(0.0, 40), 4, 1)
    unshared = 2 * 0.4 + 0.02
    assert epoch.seconds - epoch.fixed >= 10 * (0.2 + unshared + 4 * 0.07 / 2) * (1 - 1e-9)
    with pytest.raises(ValueError, match="`frequency` must be an integer >= 1"):
        epoch_of_pushes(costs, cluster, Job(0.0, 40), 4, 0)
