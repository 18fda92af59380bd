from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.optimizers import ElasticAverage, MergeContext, ServerOptimizer

ROUND = MergeContext("synchronous")


def exchange(
    rule: ServerOptimizer,
    centre: np.ndarray,
    local: np.ndarray,
    share: float,
    start: np.ndarray | None = None,
    slots: dict[str, np.ndarray] | None = None,
) -> None:
    """One asynchronous exchange, as aggregator and replica do it between them."""
    context = MergeContext("asynchronous", share=share)
    gap = local - centre
    rule.apply(centre, gap, context)
    rule.replica_update(local, gap, local if start is None else start, slots or {}, context)


def test_an_exchange_matches_a_calculation_by_hand():
    # alpha = 0.5 * 0.5: a quarter of the way, from both sides.
    centre, local = np.array([0, 4, 1], "float32"), np.array([8, 0, 1], "float32")
    exchange(ElasticAverage(rho=0.5), centre, local, share=0.5)
    np.testing.assert_array_equal(centre, [2, 3, 1])
    np.testing.assert_array_equal(local, [6, 1, 1])


def test_an_exchange_keeps_the_sum_of_centre_and_replica():
    rng = np.random.default_rng(0)
    centre, local = rng.normal(size=(2, 1000))
    total = centre + local
    exchange(ElasticAverage(rho=0.9), centre, local, share=0.3)
    np.testing.assert_allclose(centre + local, total, rtol=1e-12)


def test_a_replica_keeps_its_own_weights():
    assert ElasticAverage.keeps_replica_weights
    centre, local = np.zeros(3, "float32"), np.ones(3, "float32")
    exchange(ElasticAverage(), centre, local, share=0.5)
    assert not np.array_equal(local, centre)


def test_a_round_equals_equations_5_and_6_of_the_paper():
    # beta = 0.6, p = 3, alpha = 0.2; replicas at 3, 6, 0 and the centre at 1.
    rule, centre = ElasticAverage(rho=0.6), np.array([1.0])
    replicas = [np.array([3.0]), np.array([6.0]), np.array([0.0])]
    gaps = [x - centre for x in replicas]
    rule.apply(centre, rule.reduce(gaps, [10, 10, 10]), ROUND)
    for x, gap in zip(replicas, gaps, strict=True):
        rule.replica_update(x, gap, x, {}, MergeContext("synchronous", share=1 / 3))
    np.testing.assert_allclose(centre, (1 - 0.6) * 1 + 0.6 * (3 + 6 + 0) / 3)
    np.testing.assert_allclose(np.ravel(replicas), [3 - 0.2 * 2, 6 - 0.2 * 5, 0 + 0.2 * 1])


def test_rho_of_one_moves_the_centre_to_the_mean_of_the_replicas():
    rule, centre = ElasticAverage(rho=1), np.array([1.0])
    gaps = [np.array([3.0]) - centre, np.array([6.0]) - centre]
    rule.apply(centre, rule.reduce(gaps, [1, 1]), ROUND)
    np.testing.assert_array_equal(centre, [4.5])


def test_a_larger_shard_moves_the_centre_and_itself_further():
    rule, centre = ElasticAverage(rho=0.8), np.zeros(1)
    gaps = [np.array([4.0]), np.array([8.0])]
    rule.apply(centre, rule.reduce(gaps, [30, 10]), ROUND)
    np.testing.assert_allclose(centre, 0.8 * (0.75 * 4 + 0.25 * 8))
    moved = np.array([4.0])
    rule.replica_update(moved, gaps[0], moved, {}, MergeContext("synchronous", share=0.75))
    np.testing.assert_allclose(moved, 4 - 0.8 * 0.75 * 4)


def descend(point: float) -> float:
    """A step of plain SGD on x^2 / 2 with learning rate 0.1."""
    return point - 0.1 * point


def test_momentum_equals_algorithm_2_of_the_paper():
    """v <- d v - eta g(x + d v), x <- x + v, then the exchange, written out."""
    d, alpha = 0.5, 0.2
    x, v, c = 4.0, 0.0, 1.0
    rule = ElasticAverage(rho=0.4, momentum=d)
    centre, local = np.array([1.0]), np.array([4.0])
    slots = rule.replica_slots(1, "float64")
    for _ in range(5):
        v = d * v - 0.1 * (x + d * v)
        x = x + v
        e = alpha * (x - c)
        x, c = x - e, c + e
        start, local = local.copy(), descend(local)
        exchange(rule, centre, local, 0.5, start, slots)
        np.testing.assert_allclose(centre, c)
        np.testing.assert_allclose(local, x + d * v)
        np.testing.assert_allclose(slots["velocity"], v)


def test_momentum_matches_a_calculation_by_hand():
    # moved by 2: v = 0.5 * 4 + 2 = 4; pulled by 0.25 * 8 = 2; looks ahead by 0.5 * 4 = 2.
    rule = ElasticAverage(rho=0.5, momentum=0.5)
    centre, local, start = (np.array([v], "float32") for v in (0, 8, 6))
    slots = {"velocity": np.array([4], "float32")}
    exchange(rule, centre, local, 0.5, start, slots)
    assert (slots["velocity"], centre, local) == (4, 2, 8 - 2 + 2)


def test_nesterov_steps_of_keras_equal_those_of_the_paper():
    """Keras stores `x + d v`, so that its steps between exchanges are those of the paper."""
    optimizer = keras.optimizers.SGD(0.1, momentum=0.5, nesterov=True)
    variable, x, v = keras.Variable([4.0]), 4.0, 0.0
    for _ in range(4):
        optimizer.apply([variable.value], [variable])
        v = 0.5 * v - 0.1 * (x + 0.5 * v)
        x = x + v
        np.testing.assert_allclose(variable.numpy(), [x + 0.5 * v], rtol=1e-5)


def test_replicas_and_centre_converge():
    """Two replicas have their minima at 0 and 6, and the centre settles between them."""
    rule, centre = ElasticAverage(rho=0.9), np.array([50.0])
    locals_, minima = [np.array([-20.0]), np.array([80.0])], [0.0, 6.0]
    for _ in range(300):
        for local, minimum in zip(locals_, minima, strict=True):
            local -= 0.05 * (local - minimum)
            exchange(rule, centre, local, share=0.5)
    np.testing.assert_allclose(centre, 3.0, atol=0.3)


def test_a_replica_has_no_slots_without_momentum():
    assert ElasticAverage().replica_slots(3, "float32") == {}
    velocity = ElasticAverage(momentum=0.9).replica_slots(3, "float32")["velocity"]
    assert velocity.tolist() == [0, 0, 0] and velocity.dtype == np.float32


def test_gap_and_start_are_not_modified():
    rule = ElasticAverage(momentum=0.5)
    local, gap, start = (np.array(v, "float32") for v in ([3, 3], [2, 1], [1, 1]))
    slots = rule.replica_slots(2, "float32")
    rule.replica_update(local, gap, start, slots, MergeContext("asynchronous", share=0.5))
    assert (gap.tolist(), start.tolist()) == ([2, 1], [1, 1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rho": 0}, "`rho` must be a number > 0 and <= 1"),
        ({"rho": 1.1}, "`rho` must be a number > 0 and <= 1"),
        ({"momentum": 1}, "`momentum` must be a number >= 0 and < 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        ElasticAverage(**arguments)
