from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.optimizers import Adagrad


def test_updates_equal_those_of_keras_for_the_negated_delta(applied, keras_applied, random_walk):
    start, deltas = random_walk
    # Keras adds its epsilon under the root, the paper beside it: both are made too small to see.
    theirs = keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.1, epsilon=1e-20)
    expected = keras_applied(theirs, *deltas, weights=start)
    rule = Adagrad(0.1, epsilon=1e-10, initial_accumulator_value=0.1)
    weights = applied(rule, *deltas, weights=tuple(start))
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)


def test_a_step_matches_a_calculation_by_hand(applied):
    # v = 1 (epsilon^2) + 8 = 9, sqrt 3, + epsilon = 4.  v = 1 + 0.  v = 1 + 24 = 25.
    weights = applied(Adagrad(2.0, epsilon=1.0), [8**0.5, 0, -(24**0.5)])
    np.testing.assert_allclose(weights, [2 * 8**0.5 / 4, 0, -2 * 24**0.5 / 6], rtol=1e-6)


def test_the_accumulator_only_grows(applied):
    # v = 1 + 3 + 5 = 9: the second step divides by 3 + 1.
    rule = Adagrad(1.0, epsilon=1.0)
    applied(rule, [3**0.5] * 3)
    np.testing.assert_allclose(applied(rule, [5**0.5] * 3), [5**0.5 / 4] * 3, rtol=1e-6)


def test_the_first_moment_matches_a_calculation_by_hand(applied):
    # m = 0.25 * 4 = 1, then 0.75 * 1 + 0.25 * 8 = 2.75; v = 1 + 16, then 17 + 64.
    rule = Adagrad(1.0, beta_1=0.75, epsilon=1.0)
    first = applied(rule, [4, 0, 0])
    np.testing.assert_allclose(first, [1 / (17**0.5 + 1), 0, 0], rtol=1e-6)
    np.testing.assert_allclose(applied(rule, [8, 0, 0]), [2.75 / 10, 0, 0], rtol=1e-6)


def test_a_push_takes_its_share_of_the_step(applied):
    whole = applied(Adagrad(1.0, epsilon=1.0), [1, 2, 3])
    quarter = applied(Adagrad(1.0, epsilon=1.0), [1, 2, 3], share=0.25)
    np.testing.assert_allclose(quarter, whole / 4, rtol=1e-6)


def test_no_first_moment_is_kept_by_default():
    rule = Adagrad(epsilon=0.5)
    rule.build(3, "float32")
    assert {k: v.tolist() for k, v in rule.get_state().items()} == {"accumulator": [0.25] * 3}


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"learning_rate": -1}, ValueError, "`learning_rate` must be"),
        ({"beta_1": 1}, ValueError, "`beta_1` must be a number >= 0 and < 1"),
        ({"epsilon": 0}, ValueError, "`epsilon` must be a finite number > 0"),
        ({"initial_accumulator_value": -1}, ValueError, "`initial_accumulator_value` must be"),
        ({"initial_accumulator_value": "1"}, TypeError, "`initial_accumulator_value` must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        Adagrad(**arguments)
