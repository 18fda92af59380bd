"""Properties that hold for every server optimizer."""

from __future__ import annotations

import doctest
import json
import tracemalloc

import numpy as np
import pytest

from kspark import optimizers
from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.optimizers import (
    ADAG,
    SGD,
    Adagrad,
    Adam,
    Average,
    Downpour,
    ElasticAverage,
    Median,
    MergeContext,
    OneShot,
    ServerOptimizer,
    StalenessAware,
    TrimmedMean,
    Yogi,
    base,
)
from kspark.optimizers.blocks import BLOCK_BYTES, blocks

RULES = [
    ADAG(0.5),
    Adagrad(0.2, beta_1=0.3, epsilon=0.02, initial_accumulator_value=0.1),
    Adagrad(),
    Adam(0.2, 0.8, 0.9, 0.01, True, 0.3),
    Adam(),
    Average(),
    Downpour(0.5),
    ElasticAverage(0.7, 0.2),
    Median(),
    OneShot(),
    SGD(0.5),
    SGD(0.7, 0.9),
    SGD(0.7, 0.9, True),
    StalenessAware(0.5),
    TrimmedMean(0.3),
    Yogi(0.2, 0.8, 0.9, 0.01, 0.3),
]
CONTEXT = MergeContext("asynchronous", share=0.5, staleness=1, num_steps=2)


def each(rules: list[ServerOptimizer]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", [rule.clone() for rule in rules], ids=repr)


# -- arithmetic ------------------------------------------------------------------------------


@each(RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_change_in_place_and_the_delta_does_not(rule, dtype):
    rule = rule.clone()
    whole = np.arange(6, dtype=dtype)
    delta = np.array([1, -2, 0.5], dtype)
    rule.build(3, dtype)
    rule.apply(whole[:3], delta, CONTEXT)
    assert not np.array_equal(whole[:3], [0, 1, 2])
    np.testing.assert_array_equal(whole[3:], [3, 4, 5])
    np.testing.assert_array_equal(delta, [1, -2, 0.5])
    assert {a.dtype for n, a in rule.get_state().items() if n != "iterations"} <= {np.dtype(dtype)}


@each(RULES)
def test_every_coordinate_of_a_long_vector_is_updated(rule):
    size = 3 * BLOCK_BYTES // 4 + 7
    rng = np.random.default_rng(1)
    weights, *deltas = rng.normal(size=(3, size)).astype("float32")
    # What happens to a coordinate does not depend on where in the vector it stands.
    places = np.array([0, size // 3, BLOCK_BYTES // 4, size - 1])
    few = weights[places]
    short = rule.clone()
    rule.build(size, "float32")
    short.build(4, "float32")
    for delta in deltas:
        rule.apply(weights, delta, CONTEXT)
        short.apply(few, delta[places], CONTEXT)
    np.testing.assert_allclose(weights[places], few, rtol=1e-6)


@each(RULES)
def test_no_vector_is_allocated_for_a_delta(rule):
    size = 64 * BLOCK_BYTES // 4
    weights, delta = np.zeros(size, "float32"), np.ones(size, "float32")
    rule.build(size, "float32")
    tracemalloc.start()
    rule.apply(weights, delta, CONTEXT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * BLOCK_BYTES


@each(RULES)
@pytest.mark.parametrize("delta", [np.ones(1, "float32"), np.ones(3, "float64")], ids=str)
def test_a_delta_of_another_shape_or_dtype_changes_nothing(rule, delta):
    weights = np.zeros(3, "float32")
    rule.build(3, "float32")
    before = rule.get_state()
    with pytest.raises(IncompatibleDeltaError):
        rule.apply(weights, delta, CONTEXT)
    assert weights.tolist() == [0, 0, 0]
    assert all(np.array_equal(rule.slot(name), array) for name, array in before.items())


def test_numpy_numbers_become_python_floats():
    rule = SGD(np.float64(0.5), np.float64(0.5))
    assert (type(rule.learning_rate), type(rule.momentum)) == (float, float)


def test_blocks_cover_everything_once():
    size = 2 * BLOCK_BYTES // 4 + 1
    vector, counts = np.zeros(size, "float32"), []
    for part, again in blocks(vector, vector):
        part += 1
        counts.append(len(again))
    assert counts == [BLOCK_BYTES // 4, BLOCK_BYTES // 4, 1]
    assert (vector == 1).all()


# -- state -----------------------------------------------------------------------------------


def run(rule: ServerOptimizer, weights: np.ndarray, deltas: np.ndarray) -> None:
    rule.build(weights.size, weights.dtype)
    for delta in deltas:
        rule.apply(weights, delta, CONTEXT)


@each(RULES)
def test_a_rule_with_saved_state_continues_exactly(rule):
    weights, *deltas = np.random.default_rng(2).normal(size=(7, 20)).astype("float32")
    straight = weights.copy()
    run(rule.clone(), straight, deltas)

    run(rule, weights, deltas[:3])
    config, state = json.loads(json.dumps(optimizers.serialize(rule))), rule.get_state()
    resumed = optimizers.deserialize(config)
    resumed.build(20, "float32")
    resumed.set_state(state)
    run(resumed, weights, deltas[3:])
    np.testing.assert_array_equal(weights, straight)


@each([SGD(1.0, 0.9), Adam(), Yogi(), Adagrad()])
def test_get_state_and_set_state_copy_the_arrays(rule):
    run(rule, np.zeros(3, "float32"), np.ones((1, 3), "float32"))
    state, other = rule.get_state(), rule.clone()
    other.build(3, "float32")
    other.set_state(state)
    name = next(iter(state))
    state[name][:] = 99
    assert (rule.slot(name) != 99).all() and (other.slot(name) != 99).all()


@each(RULES)
def test_a_clone_has_the_configuration_and_no_state(rule):
    run(rule, np.zeros(3, "float32"), np.ones((2, 3), "float32"))
    clone = rule.clone()
    assert type(clone) is type(rule) and clone.get_config() == rule.get_config()
    assert clone.get_state() == {}


def test_building_again_keeps_the_state():
    rule = SGD(1.0, 0.9)
    run(rule, np.zeros(3, "float32"), np.ones((1, 3), "float32"))
    rule.build(3, "float32")
    assert rule.slot("velocity").tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(("size", "dtype"), [(4, "float32"), (3, "float64")])
def test_building_for_another_vector_is_refused(size, dtype):
    rule = Average()
    rule.build(3, "float32")
    with pytest.raises(ValueError, match=r"`\(size, dtype\)` must be \(3, float32\)"):
        rule.build(size, dtype)


def test_a_rule_that_is_not_built_raises_an_error():
    with pytest.raises(AggregationError, match="call `build` first"):
        SGD(1.0, 0.9).apply(np.zeros(3), np.ones(3), CONTEXT)


def test_an_unknown_slot_is_named_in_the_error():
    rule = SGD(1.0, 0.9)
    rule.build(3, "float32")
    with pytest.raises(AggregationError, match='no slot "m". Slots: "velocity"'):
        rule.slot("m")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"velocity": np.ones(4, "float32")},
        {"velocity": np.ones(3, "float64")},
        {"velocity": np.ones(3, "float32"), "momentum": np.ones(3, "float32")},
    ],
    ids=str,
)
def test_state_of_another_rule_is_refused(state):
    rule = SGD(1.0, 0.9)
    rule.build(3, "float32")
    with pytest.raises(ValueError, match=r"`state` must be the arrays .*\(3,\) float32"):
        rule.set_state(state)
    assert rule.slot("velocity").tolist() == [0, 0, 0]


# -- modes -----------------------------------------------------------------------------------

S, A, H = "synchronous", "asynchronous", "hogwild"
MODES = {
    "adag": {A, H},
    "adagrad": {S, A},
    "adam": {S, A},
    "average": {S, A, H},
    "downpour": {A, H},
    "elastic_average": {S, A},
    "median": {S},
    "one_shot": {S},
    "sgd": {S, A, H},
    "staleness_aware": {A},
    "trimmed_mean": {S},
    "yogi": {S, A},
}


@pytest.mark.parametrize("mode", [S, A, H])
@pytest.mark.parametrize("name", sorted(MODES))
def test_an_unsupported_mode_is_refused_with_the_reason(name, mode):
    rule = optimizers.get(name)
    if mode in MODES[name]:
        rule.check_mode(mode)
        return
    sentence = f'`server_optimizer` must be a rule for mode="{mode}"'
    with pytest.raises(ValueError, match=sentence) as refused:
        rule.check_mode(mode)
    assert len(rule.refusal) > 30 and f"only: {rule.refusal}. Received" in str(refused.value)
    assert all(f'"{known}"' in str(refused.value) for known in MODES[name])
    assert f"Received: server_optimizer={rule!r}" in str(refused.value)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match='`mode` must be one of "synchronous", "asynchronous"'):
        Average().check_mode("async")


@pytest.mark.parametrize("name", sorted(MODES))
def test_rules_declare_whether_they_need_all_deltas_or_keep_replica_weights(name):
    rule = optimizers.get(name)
    assert rule.needs_all_deltas == (name in ("median", "trimmed_mean"))
    assert rule.keeps_replica_weights == (name in ("elastic_average", "one_shot"))


def test_replicas_of_other_rules_keep_no_weights():
    vector = np.zeros(3)
    assert Average().replica_slots(3, "float32") == {}
    with pytest.raises(NotImplementedError, match='Replicas of rule "average"'):
        Average().replica_update(vector, vector, vector, {}, CONTEXT)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"mode": "async"}, "`mode` must be one of"),
        ({"share": 1.5}, "`share` must be a number from 0 to 1"),
        ({"share": float("nan")}, "`share` must be"),
        ({"staleness": -1}, "`staleness` must be an integer >= 0"),
        ({"num_steps": 0}, "`num_steps` must be an integer >= 1"),
    ],
)
def test_a_context_out_of_range_is_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        MergeContext(**{"mode": "asynchronous", **wrong})


def test_a_merge_context_needs_only_a_mode():
    assert MergeContext("synchronous") == MergeContext("synchronous", 1.0, 0, 1)
    assert MergeContext("asynchronous", share=0).share == 0
    with pytest.raises(AttributeError):
        MergeContext("synchronous").share = 0.5


# -- your own rule ---------------------------------------------------------------------------


def test_the_docstring_example_of_a_custom_rule_works():
    found = doctest.DocTestFinder(recurse=False).find(ServerOptimizer, globs={})
    results = [doctest.DocTestRunner().run(test) for test in found]
    assert sum(r.attempted for r in results) == 7
    assert sum(r.failed for r in results) == 0


class Halved(ServerOptimizer):
    """A rule that defines one method, as documented."""

    def __init__(self, part: float = 0.5) -> None:
        super().__init__()
        self.part = part

    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        weights += self.part * delta


def test_a_custom_rule_needs_only_one_method(applied):
    rule = Halved(part=0.25)
    np.testing.assert_array_equal(applied(rule, [4, 8, 0]), [1, 2, 0])
    assert (rule.name, repr(rule)) == ("halved", "Halved(part=0.25)")
    assert rule.clone().part == 0.25
    assert rule.get_state() == {} and rule.initial_slots() == {}
    np.testing.assert_array_equal(rule.reduce([np.ones(2), np.zeros(2)], [1, 3]), [0.25, 0.25])
    for mode in base.MODES:
        rule.check_mode(mode)


def test_the_reason_for_unsupported_modes_is_optional():
    class InRounds(Halved):
        modes = frozenset({S})

    InRounds().check_mode(S)
    with pytest.raises(ValueError, match='this one is for "synchronous" only. Received'):
        InRounds().check_mode(A)


def test_a_rule_without_apply_is_refused():
    class Nothing(ServerOptimizer):
        """No rule."""

    with pytest.raises(TypeError, match="apply"):
        Nothing()


# -- what other parts of kspark ask of a rule ------------------------------------------------


@each(RULES)
def test_all_rules_but_the_robust_ones_average_the_deltas_of_a_round(rule):
    assert rule.averages_deltas == (not isinstance(rule, Median | TrimmedMean))


def test_a_rule_that_reduces_deltas_its_own_way_does_not_average_them():
    class Largest(Halved):
        def reduce(self, deltas, num_examples):
            return np.max(deltas, axis=0)

    assert Halved().averages_deltas
    assert not Largest().averages_deltas


def test_only_rules_with_a_constant_scale_are_a_scale():
    class Clipped(Downpour):
        def apply(self, weights, delta, context):
            super().apply(weights, np.clip(delta, -1, 1), context)

    assert Downpour().is_a_scale
    for rule in (ADAG(), StalenessAware(), Clipped()):
        assert not rule.is_a_scale
