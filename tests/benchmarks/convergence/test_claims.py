"""Verdicts on results just above and just below what a claim demands."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.convergence.claims import best, claims, judged


def fits(accuracy: float, size: float = 1.0) -> list[dict[str, Any]]:
    """Three fits with this mean accuracy and a standard deviation of 0.01."""
    return [{"accuracy": accuracy + more, "bytes": size} for more in (-0.01, 0.0, 0.01)]


def verdict(name: str, **found: list[dict[str, Any]]) -> str:
    claim = claims()[name]
    names = [*claim.cases, *(claim.grid or {})]
    return judged(claim, {n: found.get(n.split(",")[0], fits(0.5)) for n in names})


@pytest.mark.parametrize(
    ("accuracy", "size", "holds"), [(0.896, 99.0, True), (0.894, 1.0, False), (0.9, 101.0, False)]
)
def test_few_bytes_holds_with_close_accuracy_and_a_hundredth_of_the_bytes(
    accuracy: float, size: float, holds: bool
) -> None:
    told = verdict("few-bytes", exact=fits(0.9, 10_000.0), DiLoCo=fits(accuracy, size))
    assert told.startswith("holds: " if holds else "does not hold: ")
    assert f"{accuracy:.4f} ± 0.0100 beside 0.9000 ± 0.0100" in told
    assert f"{10_000 / size:.0f} times fewer bytes" in told


@pytest.mark.parametrize(("adam", "yogi", "holds"), [(0.6, 0.92, True), (0.909, 0.9, False)])
def test_skewed_shards_holds_if_adam_or_yogi_beats_average(
    adam: float, yogi: float, holds: bool
) -> None:
    found = {"Average": fits(0.9), "Adam": fits(adam), "Yogi": fits(yogi)}
    assert verdict("skewed-shards", **found).startswith("holds") is holds


@pytest.mark.parametrize(("average", "downpour", "holds"), [(0.8, 0.8, True), (0.895, 0.5, False)])
def test_slow_worker_holds_if_staleness_aware_beats_both_other_rules(
    average: float, downpour: float, holds: bool
) -> None:
    found = {"Average": fits(average), "Downpour": fits(downpour), "StalenessAware": fits(0.9)}
    assert verdict("slow-worker", **found).startswith("holds") is holds


@pytest.mark.parametrize(("trimmed", "average", "holds"), [(0.89, 0.5, True), (0.87, 0.5, False)])
def test_bad_replica_holds_if_trimmed_mean_comes_close_to_training_without_noise(
    trimmed: float, average: float, holds: bool
) -> None:
    found = {"without noise": fits(0.9), "TrimmedMean": fits(trimmed), "Average": fits(average)}
    assert verdict("bad-replica", **found).startswith("holds") is holds


def test_bad_replica_does_not_hold_if_average_is_as_good() -> None:
    found = {"without noise": fits(0.9), "TrimmedMean": fits(0.9), "Average": fits(0.9)}
    assert verdict("bad-replica", **found).startswith("does not hold")


def test_a_claim_with_a_failed_fit_gets_no_verdict() -> None:
    told = verdict("few-bytes", DiLoCo=[{"failed": "lost"}])
    assert told == "not judged: DiLoCo, 200 failed: lost"


def test_the_best_case_of_a_grid_is_measured_on_test_rows() -> None:
    grid = claims()["skewed-shards"].grid["Adam"]
    assert all(case.tuning and case.rows == "skewed" for case in grid.values())
    results = {name: fits(0.5) for name in grid}
    results["0.1, server 0.01"] = fits(0.9)
    results["0.02, server 0.03"] = [{"failed": "NaN"}]
    chosen = best(grid, results)
    assert (chosen.learning_rate, dict(chosen.rule_config)) == (0.1, {"learning_rate": 0.01})
    assert not chosen.tuning
