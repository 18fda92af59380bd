from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.optimizers import SGD, Average

SETTINGS = [(0.7, 0.0, False), (0.7, 0.9, False), (0.7, 0.9, True), (1.3, 0.5, True)]


@pytest.mark.parametrize(("learning_rate", "momentum", "nesterov"), SETTINGS)
def test_updates_equal_those_of_keras_for_the_negated_delta(
    applied, keras_applied, random_walk, learning_rate, momentum, nesterov
):
    start, deltas = random_walk
    theirs = keras.optimizers.SGD(learning_rate, momentum=momentum, nesterov=nesterov)
    expected = keras_applied(theirs, *deltas, weights=start)
    weights = applied(SGD(learning_rate, momentum, nesterov), *deltas, weights=tuple(start))
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)


def test_the_delta_is_scaled_without_momentum(applied):
    weights = applied(SGD(0.5), [1, 2, -4], [1, 0, 0], mode="synchronous")
    np.testing.assert_array_equal(weights, [1, 1, -2])


def test_momentum_matches_a_calculation_by_hand(applied):
    # v = (2, 0, -4), then (1, 0, -2) + (0, 2, -4); w adds both.
    weights = applied(SGD(0.5, momentum=0.5), [4, 0, -8], [0, 4, -8])
    np.testing.assert_array_equal(weights, [2 + 1, 0 + 2, -4 + (-2 - 4)])


def test_nesterov_momentum_matches_a_calculation_by_hand(applied):
    # v = (4, 0, -8), w = 0.5 v + delta = (6, 0, -12);
    # v = (2, 0, -4) + (0, 4, -8) = (2, 4, -12), w += (1, 2, -6) + (0, 4, -8).
    weights = applied(SGD(1.0, momentum=0.5, nesterov=True), [4, 0, -8], [0, 4, -8])
    np.testing.assert_array_equal(weights, [6 + 1, 0 + 6, -12 + (-6 - 8)])


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_push_is_scaled_by_its_share(applied, nesterov):
    rule = SGD(0.5, momentum=0.5, nesterov=nesterov)
    weights = applied(rule, [4, 8, -8], [2, 0, 4], share=0.25)
    expected = applied(rule.clone(), [1, 2, -2], [0.5, 0, 1])
    np.testing.assert_array_equal(weights, expected)


def test_a_push_without_momentum_is_scaled_by_its_share(applied):
    np.testing.assert_array_equal(applied(SGD(0.5), [4, 8, -8], share=0.25), [0.5, 1, -1])


def test_the_defaults_equal_plain_averaging(applied, random_walk):
    start, deltas = random_walk
    expected = applied(Average(), *deltas, weights=tuple(start), share=0.3)
    np.testing.assert_array_equal(
        applied(SGD(), *deltas, weights=tuple(start), share=0.3), expected
    )


def test_a_constant_delta_approaches_the_rate_divided_by_one_minus_momentum(applied):
    weights = applied(SGD(0.7, momentum=0.9, nesterov=True), *[[1, 0, 0]] * 400)
    before = applied(SGD(0.7, momentum=0.9, nesterov=True), *[[1, 0, 0]] * 399)
    assert weights[0] - before[0] == pytest.approx(0.7 / (1 - 0.9), rel=1e-3)


def test_no_velocity_is_kept_without_momentum():
    rule = SGD(0.5)
    rule.build(3, "float32")
    assert rule.get_state() == {}


def test_learning_rate_may_change_between_deltas(applied):
    rule = SGD(1.0)
    weights = applied(rule, [1, 1, 1])
    rule.learning_rate = 0.25
    np.testing.assert_array_equal(applied(rule, [4, 0, 8], weights=tuple(weights)), [2, 1, 3])


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"learning_rate": 0}, ValueError, "`learning_rate` must be a finite number > 0"),
        ({"learning_rate": float("nan")}, ValueError, "`learning_rate` must be"),
        ({"learning_rate": "fast"}, TypeError, "`learning_rate` must be"),
        ({"learning_rate": True}, TypeError, "`learning_rate` must be"),
        ({"momentum": 1.0}, ValueError, "`momentum` must be a number >= 0 and < 1"),
        ({"momentum": -0.1}, ValueError, "`momentum` must be"),
        ({"nesterov": True}, ValueError, "`momentum` must be > 0 if `nesterov` is True"),
        ({"nesterov": 1, "momentum": 0.9}, TypeError, "`nesterov` must be True or False"),
        ({"dampening": 0.1}, TypeError, "dampening"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        SGD(**arguments)
