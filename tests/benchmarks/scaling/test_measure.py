"""The costs that are derived from measured epochs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.scaling.costs import Costs
from benchmarks.scaling.derive import costs_from, line_through, non_negative
from benchmarks.scaling.fits import (
    LARGE,
    SMALL,
    Fit,
    Times,
    check_fits,
    cost_fits,
    steps_between_exchanges,
    weight_bytes,
)
from benchmarks.scaling.measure import (
    build_model,
    document_of,
    fits_in,
    least_of_all,
    shortest,
)

PARTS = {
    "merge": 1e-9,
    "mean": 2e-9,
    "message": 1e-3,
    "message_driver": 1e-3,
    "wire": 3e-9,
    "lock": 4e-9,
    "stage": 0.5,
    "codecs": {"half": {"ratio": 0.5, "encode": 1e-9, "decode": 2e-9}},
}


def epochs_of(steps: dict[int, float]) -> dict[Fit, Times]:
    """What a machine without noise would measure if costs were round numbers."""
    found = {}
    for fit in cost_fits():
        m, k = weight_bytes(fit.units), fit.workers
        computing = fit.batches / k * steps[fit.units]
        if fit.road == "rounds":
            computing += 0.01 + 2e-9 * m
            wall = computing + 0.15 + 3e-9 * m + k * (0.02 + (5e-9 + PARTS["merge"]) * m)
        else:
            merging = PARTS["mean" if fit.road == "batch" else "lock"]
            own = 1e-4 + 1e-9 * m if fit.road == "batch" else 2e-4 + 3e-9 * m
            computing += fit.batches / steps_between_exchanges(fit.road) * own
            exchange = PARTS["message"] + (2 * PARTS["wire"] + merging) * m
            wall = computing + fit.batches / steps_between_exchanges(fit.road) * exchange + 0.3
        found[fit] = Times(wall, computing)
    return found


def test_costs_are_recovered_from_epochs_without_noise() -> None:
    steps = {SMALL: 1e-3, LARGE: 2e-2}
    costs = costs_from(epochs_of(steps), PARTS)
    assert costs.step.points == tuple(
        (weight_bytes(units), pytest.approx(steps[units])) for units in steps
    )
    assert (costs.round.fixed, costs.round.per_byte) == pytest.approx((0.16, 5e-9))
    assert (costs.task.fixed, costs.task.per_byte) == pytest.approx((0.02, 5e-9))
    assert (costs.gradient.fixed, costs.gradient.per_byte) == pytest.approx((1e-4, 1e-9))
    assert (costs.delta.fixed, costs.delta.per_byte) == pytest.approx((2e-4, 3e-9))
    assert (costs.live_epoch, costs.stage) == pytest.approx((0.3, 0.5))
    assert (costs.merge, costs.lock, costs.wire) == (1e-9, 4e-9, 3e-9)
    assert costs.codecs["half"].decode == 2e-9


def test_a_measurement_is_read_back_from_its_file() -> None:
    found = epochs_of({SMALL: 1e-3, LARGE: 2e-2})
    found |= {fit: Times(1.0, 0.5) for fit in check_fits()}
    document = json.loads(json.dumps(document_of(found, PARTS)))
    assert fits_in(document) == found
    assert [check["workers"] for check in document["checks"]] == [1, 2, 4] * 3
    assert {check["seconds"] for check in document["checks"]} == {1.0}
    assert Costs.from_dict(document["costs"]) == costs_from(found, PARTS)


def test_the_shortest_time_of_several_runs_is_kept() -> None:
    one, other = Times(1.0, 0.8), Times(2.0, 0.4)
    assert shortest(one, None) == one
    assert shortest(one, other) == Times(1.0, 0.4)
    figures = {"a": 1.0, "b": {"c": 4.0}}, {"a": 2.0, "b": {"c": 3.0}}
    assert least_of_all(*figures) == {"a": 1.0, "b": {"c": 3.0}}


def test_no_cost_is_negative() -> None:
    small, large = weight_bytes(SMALL), weight_bytes(LARGE)
    assert line_through({SMALL: 2.0, LARGE: 1.0}).at(large) == pytest.approx(2)
    steep = line_through({SMALL: 1.0, LARGE: 100.0})
    assert (steep.fixed, steep.at(large)) == (0, pytest.approx(100))
    assert steep.at(small) > 1
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert non_negative(x, np.array([3.0, -2.0])) == [3, 0]
    assert non_negative(x, np.array([-3.0, -2.0])) == [0, 0]


def test_the_size_of_the_weights_is_that_of_the_keras_model() -> None:
    model = build_model(SMALL)
    assert weight_bytes(SMALL) == 4 * model.count_params()
    assert weight_bytes(LARGE) > 9e6
