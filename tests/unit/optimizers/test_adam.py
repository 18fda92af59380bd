from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.optimizers import Adam


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])
def test_updates_with_bias_correction_equal_those_of_keras(
    applied, keras_applied, random_walk, betas
):
    start, deltas = random_walk
    theirs = keras.optimizers.Adam(0.05, beta_1=betas[0], beta_2=betas[1], epsilon=1e-3)
    expected = keras_applied(theirs, *deltas, weights=start)
    rule = Adam(0.05, *betas, epsilon=1e-3, bias_correction=True)
    weights = applied(rule, *deltas, weights=tuple(start))
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


def test_updates_without_bias_correction_equal_those_of_keras_without_it(
    applied, keras_applied, random_walk
):
    start, deltas = random_walk

    class Uncorrected(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            t = keras.ops.cast(step, "float32") + 1.0
            return 0.05 * (1 - 0.9**t) / keras.ops.sqrt(1 - 0.99**t)

    theirs = keras.optimizers.Adam(Uncorrected(), beta_1=0.9, beta_2=0.99, epsilon=1e-3)
    expected = keras_applied(theirs, *deltas, weights=start)
    rule = Adam(0.05, 0.9, 0.99, epsilon=1e-3, initial_accumulator_value=0.0)
    weights = applied(rule, *deltas, weights=tuple(start))
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


def test_two_steps_match_a_calculation_by_hand(applied):
    # v = 0.5 * 1 (epsilon^2) + 0.5 * 7 = 4, sqrt 2, + epsilon = 3; m = 0.25 * delta.
    rule = Adam(3.0, beta_1=0.75, beta_2=0.5, epsilon=1.0)
    first = applied(rule, [7**0.5, 1, 0])
    np.testing.assert_allclose(first, [7**0.5 / 4, 3 * 0.25 / 2, 0], rtol=1e-6)
    # m = 0.75 * 0.25 sqrt 7 + 0.25 * 2; v = 0.5 * 4 + 0.5 * 4 = 4.
    second = applied(rule, [2, 0, 0])
    np.testing.assert_allclose(second[0], 0.1875 * 7**0.5 + 0.5, rtol=1e-6)


def test_a_push_takes_its_share_of_the_step(applied):
    whole = applied(Adam(epsilon=1.0), [1, 2, 3])
    quarter = applied(Adam(epsilon=1.0), [1, 2, 3], share=0.25)
    np.testing.assert_allclose(quarter, whole / 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ({"epsilon": 0.5}, 0.25),
        ({"epsilon": 0.5, "bias_correction": True}, 0.0),
        ({"epsilon": 0.5, "initial_accumulator_value": 3.0}, 3.0),
        ({"bias_correction": True, "initial_accumulator_value": 3.0}, 3.0),
    ],
)
def test_the_moments_start_at_their_initial_values(arguments, first):
    rule = Adam(**arguments)
    rule.build(2, "float32")
    assert rule.slot("accumulator").tolist() == [first] * 2
    assert rule.slot("momentum").tolist() == [0.0] * 2


def test_the_count_of_steps_is_part_of_the_state(applied):
    rule = Adam(bias_correction=True)
    applied(rule, [1, 1, 1], [1, 1, 1])
    rule.build(3, "float32")
    assert rule.get_state()["iterations"] == 2
    assert "iterations" not in Adam().get_state()


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"beta_2": 1.0}, ValueError, "`beta_2` must be a number >= 0 and < 1"),
        ({"bias_correction": None}, TypeError, "`bias_correction` must be True or False"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        Adam(**arguments)
