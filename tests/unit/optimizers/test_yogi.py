from __future__ import annotations

import numpy as np
import pytest

from kspark.optimizers import Yogi


def test_the_accumulator_changes_by_the_squared_delta_in_either_direction(applied):
    # v starts at 4: above delta^2 = 1 it falls, below 9 it rises, at 4 it stays.
    rule = Yogi(epsilon=2.0, beta_2=0.5)
    applied(rule, [1, 3, 2])
    np.testing.assert_array_equal(rule.slot("accumulator"), [4 - 0.5, 4 + 4.5, 4])


def test_two_steps_match_a_calculation_by_hand(applied):
    # v = 4 + 0.25 * 20 = 9, sqrt 3, + epsilon = 5; m = 0.5 * delta.
    rule = Yogi(10.0, beta_1=0.5, beta_2=0.75, epsilon=2.0)
    first = applied(rule, [20**0.5, 0, 0])
    np.testing.assert_allclose(first, [20**0.5, 0, 0], rtol=1e-6)
    # v = 9 + 0.25 * 28 = 16, + epsilon = 6; m = 0.25 sqrt 20 + 0.5 sqrt 28.
    second = applied(rule, [28**0.5, 0, 0])
    expected = 10 * (0.25 * 20**0.5 + 0.5 * 28**0.5) / 6
    np.testing.assert_allclose(second, [expected, 0, 0], rtol=1e-6)


def test_yogi_forgets_large_deltas_more_slowly_than_adam(applied):
    from kspark.optimizers import Adam

    slots = []
    for rule in (Yogi(beta_2=0.5), Adam(beta_2=0.5)):
        applied(rule, [1.0] * 3, *[[0.01] * 3] * 20)
        slots.append(rule.slot("accumulator")[0])
    assert slots[0] > 0.45 > 0.001 > slots[1]


def test_a_push_takes_its_share_of_the_step(applied):
    whole = applied(Yogi(epsilon=1.0), [1, 2, 3])
    quarter = applied(Yogi(epsilon=1.0), [1, 2, 3], share=0.25)
    np.testing.assert_allclose(quarter, whole / 4, rtol=1e-6)


def test_the_initial_accumulator_value_is_used(applied):
    rule = Yogi(epsilon=2.0, beta_2=0.5, initial_accumulator_value=1.0)
    applied(rule, [1, 3, 0])
    np.testing.assert_array_equal(rule.slot("accumulator"), [1, 5.5, 1])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`beta_2` must be a number >= 0 and < 1"):
        Yogi(beta_2=1.0)
