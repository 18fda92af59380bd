"""The aggregator: results by hand, in any order of arrival, and from many threads."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspark import optimizers
from kspark.aggregator import Aggregator, Delta
from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.optimizers import MergeContext, ServerOptimizer
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE), Weight("mean", (1,), "float32", STATE)))
ONLY_TRAINABLE = WeightSpec((Weight("w", (3,), "float32", TRAINABLE),))


def aggregator(rule="average", mode="synchronous", spec=SPEC, start=(0.0, 0.0, 0.0), **config):
    optimizer = rule if isinstance(rule, ServerOptimizer) else optimizers.get(rule)
    return Aggregator(spec, np.array(start, "float32"), optimizer, mode)


def vector(*values):
    return np.array(values, "float32")


class Spy(ServerOptimizer):
    """Adds deltas unchanged, records their contexts, and can be made to wait inside `apply`."""

    def __init__(self, inside=None):
        super().__init__()
        self.inside = inside
        self.contexts = []

    def apply(self, weights, delta, context):
        self.contexts.append(context)
        if self.inside is not None:
            self.inside()
        weights += delta


# -- merge ---------------------------------------------------------------------------------------


def test_merge_matches_a_calculation_by_hand():
    """Mean of (4, 0, 8) of 1 example and (8, 4, 0) of 3, on top of (1, 1, 1)."""
    shared = aggregator(start=(1, 1, 1))
    version = shared.merge([Delta(0, vector(4, 0, 8), 1), Delta(1, vector(8, 4, 0), 3)])
    assert version == shared.version == 1
    assert shared.weights.tolist() == [8, 4, 3]


def test_state_is_averaged_whatever_the_rule():
    shared = aggregator(optimizers.get({"class_name": "sgd", "config": {"learning_rate": 0.5}}))
    shared.merge([Delta(0, vector(4, 8, 16), 1), Delta(1, vector(4, 8, 32), 1)])
    assert shared.weights.tolist() == [2, 4, 24]


def test_the_rule_gets_all_weights_when_there_is_no_state():
    shared = aggregator(spec=ONLY_TRAINABLE)
    shared.merge([Delta(0, vector(1, 2, 3), 5)])
    assert shared.weights.tolist() == [1, 2, 3]


def test_deltas_without_examples_are_ignored():
    shared = aggregator()
    nonsense = np.array([np.nan])
    shared.merge([Delta(0, nonsense, 0), Delta(1, vector(1, 2, 3), 7)])
    assert shared.weights.tolist() == [1, 2, 3]


def test_merging_no_examples_raises_an_error_and_changes_nothing():
    shared = aggregator(start=(1, 2, 3))
    with pytest.raises(AggregationError):
        shared.merge([Delta(0, vector(1, 1, 1), 0)])
    assert (shared.version, shared.weights.tolist()) == (0, [1, 2, 3])


def test_a_delta_that_does_not_fit_changes_nothing_and_names_its_shard():
    shared = aggregator(start=(1, 2, 3))
    deltas = [Delta(0, vector(1, 1, 1), 1), Delta(4, vector(1, 1), 1)]
    with pytest.raises(IncompatibleDeltaError, match=r"The delta of shard 4 has shape \(2,\)"):
        shared.merge(deltas)
    with pytest.raises(IncompatibleDeltaError):
        shared.merge([Delta(0, np.ones(3), 1)])
    assert (shared.version, shared.weights.tolist()) == (0, [1, 2, 3])


@given(
    hnp.arrays(np.float32, (4, 3), elements=st.floats(-10, 10, width=32)),
    st.lists(st.integers(1, 999), min_size=4, max_size=4),
)
def test_merge_equals_the_average_of_numpy_exactly_in_any_order_of_arrival(rows, counts):
    deltas = [Delta(k, rows[k], counts[k]) for k in range(4)]
    results = set()
    for order in itertools.permutations(deltas):
        shared = aggregator()
        shared.merge(order)
        results.add(shared.weights.tobytes())
    assert len(results) == 1
    expected = np.average(rows, axis=0, weights=counts)
    np.testing.assert_allclose(shared.weights, expected, rtol=1e-5, atol=1e-5)


def test_the_rule_gets_the_context_of_a_round():
    spy = Spy()
    aggregator(spy).merge([Delta(0, vector(0, 0, 0), 1)], num_steps=12)
    assert spy.contexts == [MergeContext("synchronous", share=1.0, staleness=0, num_steps=12)]


def test_deltas_are_not_modified():
    delta = vector(1, 2, 3)
    shared = aggregator()
    shared.merge([Delta(0, delta, 2)])
    shared.push(delta, 0.5, 0)
    assert delta.tolist() == [1, 2, 3]


# -- push, pull, replace ---------------------------------------------------------------------------


def test_pushes_of_all_shards_add_up_to_a_round():
    """Shares 1/4 and 3/4 of (4, 0, 8) and (8, 4, 0)."""
    shared = aggregator(mode="asynchronous", start=(1, 1, 1))
    assert shared.push(vector(4, 0, 8), 0.25, 0) == (1, 0)
    assert shared.push(vector(8, 4, 0), 0.75, 0) == (2, 1)
    assert shared.weights.tolist() == [8, 4, 3]


def test_staleness_is_the_version_now_minus_the_version_pulled():
    shared = aggregator(mode="asynchronous")
    staleness = [shared.push(vector(0, 0, 0), 1.0, base)[1] for base in (0, 0, 2, 0, 99)]
    assert staleness == [0, 1, 0, 3, 0]


def test_the_rule_gets_the_context_of_a_push():
    spy = Spy()
    shared = aggregator(spy, mode="asynchronous")
    shared.push(vector(0, 0, 0), 0.25, 0, num_steps=3)
    shared.push(vector(0, 0, 0), 0.75, 0, num_steps=5)
    assert spy.contexts == [
        MergeContext("asynchronous", share=0.25, staleness=0, num_steps=3),
        MergeContext("asynchronous", share=0.75, staleness=1, num_steps=5),
    ]


def test_pushed_state_is_scaled_by_its_share_whatever_the_rule():
    shared = aggregator("downpour", mode="asynchronous")
    shared.push(vector(4, 8, 16), 0.25, 0)
    assert shared.weights.tolist() == [4, 8, 4]


def test_a_push_that_does_not_fit_changes_nothing():
    shared = aggregator(mode="asynchronous")
    for wrong in (vector(1, 2), np.ones(3), np.ones((3, 1), "f4")):
        with pytest.raises(IncompatibleDeltaError, match="The delta has shape"):
            shared.push(wrong, 1.0, 0)
    assert (shared.version, shared.weights.tolist()) == (0, [0, 0, 0])


def test_pull_copies_weights_and_version():
    shared = aggregator(start=(1, 2, 3))
    out = vector(0, 0, 0)
    assert shared.pull(out) == 0
    shared.push(vector(1, 1, 1), 1.0, 0)
    assert out.tolist() == [1, 2, 3]
    assert shared.pull(out) == 1
    assert out.tolist() == [2, 3, 4]


def test_replace_copies_the_weights():
    shared = aggregator()
    given = vector(7, 8, 9)
    assert shared.replace(given) == 1
    given[:] = 0
    assert shared.weights.tolist() == [7, 8, 9]
    with pytest.raises(IncompatibleDeltaError, match="The weights vector has shape"):
        shared.replace(vector(1))
    assert shared.version == 1


def test_the_aggregator_updates_the_given_vector_in_place():
    own = vector(0, 0, 0)
    Aggregator(SPEC, own, optimizers.get("average"), "synchronous").replace(vector(1, 2, 3))
    assert own.tolist() == [1, 2, 3]


def test_initial_weights_must_fit():
    with pytest.raises(IncompatibleDeltaError, match="The initial weights vector has shape"):
        aggregator(start=(1, 2))


def test_the_rule_is_built_for_the_trainable_weights():
    shared = aggregator("adam")
    assert {a.shape for a in shared.optimizer.get_state().values()} == {(2,)}


# -- exchange: replicas with weights of their own --------------------------------------------------


def elastic(rho):
    return optimizers.ElasticAverage(rho)


def test_exchange_matches_a_calculation_by_hand():
    """The centre (2, 4) meets a replica at (6, 0): alpha = 1/2 * 1/4. State: 1/4 of 8."""
    shared, out = aggregator(elastic(0.5), "asynchronous", start=(2, 4, 1)), vector(0, 0, 0)
    assert shared.exchange(vector(6, 0, 8), 0.25, 0, out) == (1, 0)
    assert out.tolist() == [4, -4, 3]
    assert shared.weights.tolist() == [2.5, 3.5, 3]


def test_an_exchange_that_was_already_applied_returns_the_current_gap():
    shared, out = aggregator(elastic(0.5), "asynchronous", start=(2, 4, 1)), vector(0, 0, 0)
    assert shared.exchange(vector(6, 0, 8), 0.25, 0, out, applied=True) == (0, 0)
    assert out.tolist() == [4, -4, 1]
    assert shared.weights.tolist() == [2, 4, 1]


def test_the_rule_gets_the_context_of_an_exchange_and_the_sent_vector_is_not_modified():
    spy = Spy()
    shared, out = aggregator(spy, "asynchronous"), vector(0, 0, 0)
    sent = vector(1, 2, 3)
    for version in (1, 2):
        assert shared.exchange(sent, 0.5, 0, out, num_steps=7) == (version, version - 1)
    assert spy.contexts == [MergeContext("asynchronous", 0.5, s, 7) for s in (0, 1)]
    assert sent.tolist() == [1, 2, 3]


def test_an_exchange_that_does_not_fit_changes_nothing():
    shared, out = aggregator(elastic(0.5), "asynchronous"), vector(0, 0, 0)
    with pytest.raises(IncompatibleDeltaError, match="vector of weights"):
        shared.exchange(vector(1, 2), 1.0, 0, out)
    assert (shared.version, shared.weights.tolist(), out.tolist()) == (0, [0, 0, 0], [0, 0, 0])


# -- threads ---------------------------------------------------------------------------------------


def test_concurrent_pushes_lose_no_update():
    """Sums of integers are exact in float32: every lost update would show."""
    size, threads, pushes = 5000, 8, 50
    spec = WeightSpec(
        (Weight("w", (size,), "float32", TRAINABLE), Weight("s", (7,), "float32", STATE))
    )
    shared = Aggregator(spec, np.zeros(spec.size, "f4"), optimizers.get("average"), "asynchronous")
    start = threading.Barrier(threads)

    def work(number):
        delta = np.full(spec.size, number, "float32")
        start.wait(30)
        return [shared.push(delta, 1.0, 0)[0] for _ in range(pushes)]

    with ThreadPoolExecutor(threads) as pool:
        versions = list(pool.map(work, range(1, threads + 1)))
    assert set(shared.weights.tolist()) == {float(pushes * sum(range(1, threads + 1)))}
    assert shared.version == threads * pushes
    assert sorted(itertools.chain(*versions)) == list(range(1, threads * pushes + 1))


def test_a_pull_never_sees_a_partial_update():
    size = 20_000
    spec = WeightSpec((Weight("w", (size,), "float32", TRAINABLE),))
    shared = Aggregator(spec, np.zeros(size, "f4"), optimizers.get("average"), "asynchronous")
    done = threading.Event()

    def read():
        out, seen = np.empty(size, "f4"), []
        while not done.is_set() or not seen:
            version = shared.pull(out)
            seen.append((version, out.min(), out.max()))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for _ in range(200):
            shared.push(np.ones(size, "f4"), 1.0, 0)
        done.set()
    for version, low, high in itertools.chain(*(r.result() for r in readers)):
        assert version == low == high


def together(mode):
    """Whether two pushes can be inside of the rule at the same time."""
    barrier = threading.Barrier(2)
    shared = aggregator(Spy(lambda: barrier.wait(0.5 if mode != "hogwild" else 30)), mode=mode)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(shared.push, vector(1, 1, 1), 1.0, 0) for _ in range(2)]
    return all(f.exception() is None for f in futures)


def test_hogwild_pushes_run_concurrently():
    assert together("hogwild")


@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
def test_other_modes_run_one_push_at_a_time(mode):
    assert not together(mode)


def test_the_state_of_the_rule_is_given_as_a_copy():
    shared = aggregator(optimizers.SGD(0.5, momentum=0.5))
    shared.push(vector(2, 4, 6), 1.0, 0)
    state = shared.rule_state()
    assert {name: slot.tolist() for name, slot in state.items()} == {"velocity": [1, 2]}
    state["velocity"][:] = 9
    assert shared.rule_state()["velocity"].tolist() == [1, 2]


# -- constraints -----------------------------------------------------------------------------------

RULES = [
    *("average", "adam", "yogi", "adagrad", "median", "trimmed_mean"),
    *({"class_name": "sgd", "config": c} for c in ({}, {"momentum": 0.9, "nesterov": True})),
    {"class_name": "elastic_average", "config": {"momentum": 0.9}},
]
PUSHING = ("average", "adam", "sgd", "downpour", "adag", "staleness_aware")


def not_negative(weights):
    """A constraint on the trainable weights of `SPEC`."""
    np.maximum(weights[:2], 0, out=weights[:2])


def constrained(*arguments, **more):
    shared = aggregator(*arguments, **more)
    shared.keep_constraints(not_negative)
    return shared


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_constraints_hold_after_a_merge_with_every_rule(rule):
    """Without them, momentum and adaptive steps leave the set even if all replicas are in it."""
    start = (0.01, 0.01, 1)
    shared, free = constrained(rule, start=start), aggregator(rule, start=start)
    for _ in range(8):
        for each in (shared, free):
            each.merge([Delta(k, vector(-0.5, 1, -1), 1) for k in range(3)])
        assert shared.weights[0] >= 0
    assert free.weights[0] < 0
    assert shared.weights[1] > 0
    assert shared.weights[2] == free.weights[2] < 0


@pytest.mark.parametrize("mode", ["asynchronous", "hogwild"])
@pytest.mark.parametrize("rule", PUSHING)
def test_constraints_hold_after_a_push_with_every_rule(mode, rule):
    shared = constrained(rule, mode, start=(0.01, 1, 1))
    for _ in range(4):
        shared.push(vector(-2, 1, -1), 0.5, 0)
        assert shared.weights[0] == 0


def test_constraints_hold_after_an_exchange_with_a_replica_of_own_weights():
    shared, gap = constrained("elastic_average", "asynchronous", start=(1, 1, 1)), vector(0, 0, 0)
    shared.exchange(vector(-9, 1, 0), 0.5, 0, gap)
    assert gap[:2].tolist() == [-10, 0]  # from the centre before it moved
    assert shared.weights[0] == 0


def test_constraints_are_not_applied_to_weights_that_the_user_sets():
    shared = constrained()
    shared.replace(vector(-1, 2, 3))
    assert shared.weights.tolist() == [-1, 2, 3]


def test_a_constraint_is_applied_once_per_change():
    """It may move weights only a part of the way, so that twice is further than once."""
    applied = []
    shared = aggregator("average", "asynchronous")
    shared.keep_constraints(applied.append)
    shared.push(vector(1, 1, 1), 0.5, 0)
    shared.merge([Delta(0, vector(1, 1, 1), 1), Delta(1, vector(1, 1, 1), 1)])
    assert (len(applied), shared.version) == (2, 2)


@pytest.mark.parametrize("mode", ["asynchronous", "hogwild"])
def test_nobody_sees_weights_between_a_push_and_its_constraints(mode):
    """Also in hogwild mode, which has a lock then."""
    shared, pushed, resume = aggregator("downpour", mode), threading.Event(), threading.Event()

    def project(weights):
        pushed.set()
        assert resume.wait(30)
        not_negative(weights)

    shared.keep_constraints(project)
    out = vector(9, 9, 9)
    with ThreadPoolExecutor(3) as pool:
        pushing = pool.submit(shared.push, vector(-1, -1, 0), 1.0, 0)
        assert pushed.wait(30)
        readers = [pool.submit(shared.pull, out), pool.submit(shared.settled)]
        assert not wait(readers, 0.05).done
        resume.set()
        assert pushing.result(30) == (1, 0)
        assert readers[1].result(30).tolist() == [0, 0, 0]
    assert out.tolist() == [0, 0, 0]


def test_without_constraints_the_settled_weights_are_not_copied():
    shared = aggregator()
    assert not shared.keeps_constraints
    assert shared.settled() is shared.weights
    assert constrained().settled() is not shared.weights
