"""From measured epochs to costs."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

ALONE = {
    "merge": 1e-9,
    "mean": 2e-9,
    "message": 1e-3,
    "message_driver": 1e-3,
    "wire": 3e-9,
    "lock": 4e-9,
    "stage": 0.5,
    "codecs": {"half": {"ratio": 0.5, "encode": 1e-9, "decode": 2e-9}},
}


def epochs_of(s: ModuleType, steps: dict[int, float]) -> dict[Any, Any]:
    """What a machine without noise would measure, for costs of round numbers."""
    found = {}
    for case in s.cost_cases():
        m, k = s.weight_bytes(case.units), case.workers
        computing = case.batches / k * steps[case.units]
        if case.road == "rounds":
            computing += 0.01 + 2e-9 * m
            wall = computing + 0.15 + 3e-9 * m + k * (0.02 + (5e-9 + ALONE["merge"]) * m)
        else:
            merging = ALONE["mean" if case.road == "batch" else "lock"]
            own = 1e-4 + 1e-9 * m if case.road == "batch" else 2e-4 + 3e-9 * m
            computing += case.batches / s.every(case.road) * own
            exchange = ALONE["message"] + (2 * ALONE["wire"] + merging) * m
            wall = computing + case.batches / s.every(case.road) * exchange + 0.3
        found[case] = s.Found(wall, computing)
    return found


def test_costs_are_found_in_the_epochs_that_they_make(measuring: ModuleType) -> None:
    s = measuring
    steps = {s.SMALL: 1e-3, s.LARGE: 2e-2}
    costs = s.costs_from(epochs_of(s, steps), ALONE)
    assert costs.step.points == tuple(
        (s.weight_bytes(units), pytest.approx(steps[units])) for units in steps
    )
    assert (costs.round.fixed, costs.round.per_byte) == pytest.approx((0.16, 5e-9))
    assert (costs.task.fixed, costs.task.per_byte) == pytest.approx((0.02, 5e-9))
    assert (costs.gradient.fixed, costs.gradient.per_byte) == pytest.approx((1e-4, 1e-9))
    assert (costs.delta.fixed, costs.delta.per_byte) == pytest.approx((2e-4, 3e-9))
    assert (costs.live_epoch, costs.stage) == pytest.approx((0.3, 0.5))
    assert (costs.merge, costs.lock, costs.wire) == (1e-9, 4e-9, 3e-9)
    assert costs.codecs["half"].decode == 2e-9


def test_a_measurement_survives_its_file(measuring: ModuleType) -> None:
    s = measuring
    found = epochs_of(s, {s.SMALL: 1e-3, s.LARGE: 2e-2})
    found |= {case: s.Found(1.0, 0.5) for case in s.check_cases()}
    document = json.loads(json.dumps(s.document_of(found, ALONE)))
    assert s.fits_in(document) == found
    assert [check["workers"] for check in document["checks"]] == [1, 2, 4] * 3
    assert {check["seconds"] for check in document["checks"]} == {1.0}
    assert s.Costs.from_dict(document["costs"]) == s.costs_from(found, ALONE)


def test_the_least_of_several_fits_counts(measuring: ModuleType) -> None:
    one, other = measuring.Found(1.0, 0.8), measuring.Found(2.0, 0.4)
    assert measuring.least(one, None) == one
    assert measuring.least(one, other) == measuring.Found(1.0, 0.4)
    figures = {"a": 1.0, "b": {"c": 4.0}}, {"a": 2.0, "b": {"c": 3.0}}
    assert measuring.least_of_all(*figures) == {"a": 1.0, "b": {"c": 3.0}}


def test_what_noise_makes_negative_is_left_out(measuring: ModuleType) -> None:
    s = measuring
    small, large = s.weight_bytes(s.SMALL), s.weight_bytes(s.LARGE)
    assert s.line_through({s.SMALL: 2.0, s.LARGE: 1.0}).at(large) == pytest.approx(2)
    steep = s.line_through({s.SMALL: 1.0, s.LARGE: 100.0})
    assert (steep.fixed, steep.at(large)) == (0, pytest.approx(100))
    assert steep.at(small) > 1
    x = s.np.array([[1.0, 0.0], [0.0, 1.0]])
    assert s.non_negative(x, s.np.array([3.0, -2.0])) == [3, 0]
    assert s.non_negative(x, s.np.array([-3.0, -2.0])) == [0, 0]


def test_the_weights_are_counted_as_keras_does(measuring: ModuleType) -> None:
    model = measuring.build_model(measuring.SMALL)
    assert measuring.weight_bytes(measuring.SMALL) == 4 * model.count_params()
    assert measuring.weight_bytes(measuring.LARGE) > 9e6
