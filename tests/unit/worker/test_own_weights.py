"""Replicas that keep weights of their own: what they and the centre move by, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark import optimizers
from kspark.live.push_loop import run_pushes
from kspark.worker.own_weights import PushedWeights

CENTRE = [(1, 1.5), (2.5, 7.75)]
OWN = [(3, 4.5), (5.5, 20.25)]
"""Of rows 0 to 7 in batches of 4, rho = 1/4: after the first exchange, and after the second."""


def elastic(rho=0.25, momentum=0.0):
    return optimizers.ElasticAverage(rho, momentum)


def plan_of(tools, **more):
    return tools.plan(shuffle=False, **{"epochs": 1, **more})


def own_of(run, exchanges):
    """A shard's own weights, from its file; NaN where there are none."""
    base = np.full(3, np.nan, "f4")
    run.own_weights().restore(base, exchanges)
    return base


def bases(run):
    """Where the replica's local training began."""
    return [tuple(values) for kind, values in run.replica.calls if kind == "set_vector"]


def test_replica_and_centre_move_by_the_same_amount(tools):
    with tools.world([8], plan_of(tools), rule=elastic()) as world:
        world.train()
        assert bases(world.runs[0]) == [(0, 0, 0), (*OWN[0], 1), (*OWN[1], 2)]
        assert world.aggregator.weights.tolist() == [*CENTRE[1], 2]


def test_the_share_of_the_examples_counts(tools):
    with tools.world([4, 12], plan_of(tools, frequency="epoch"), rule=elastic()) as world:
        run = world.run(0)
        run_pushes(run)  # x = (4, 6), alpha = 1/4 * 4/16
        assert world.aggregator.weights.tolist() == [4 / 16, 6 / 16, 1 / 4]
        assert own_of(run, 1)[:2].tolist() == [4 - 4 / 16, 6 - 6 / 16]


def test_momentum_goes_with_the_shard(tools):
    rule = elastic(momentum=0.5)
    with tools.world([8], plan_of(tools), rule=rule) as world:
        lost = tools.at("push", 2)
        world.train({0: lost})
        assert lost.hits
        # v = (4, 6): from (3, 4.5) + v/2. Then d = (4, 22), v = (6, 25), x = (9, 29.5),
        # gap = (8, 28), x = (7, 22.5) + v/2.
        assert bases(world.runs[0]) == [(5, 7.5, 1), (10, 35, 2)]
        assert world.aggregator.weights.tolist() == [3, 8.5, 2]


def test_lost_before_a_push_it_goes_on_from_the_last_exchange(tools):
    with tools.world([8], plan_of(tools), rule=elastic()) as world:
        lost = tools.at("push", 2)
        world.train({0: lost})
        assert lost.hits
        assert bases(world.runs[0]) == [(*OWN[0], 1), (*OWN[1], 2)]
        assert world.aggregator.weights.tolist() == [*CENTRE[1], 2]


def test_when_an_answer_is_lost_the_centre_has_moved_and_the_replica_has_not(tools):
    with tools.world([8], plan_of(tools, epochs=2), rule=elastic()) as world:
        lost = tools.at("push", 2, "after")
        reports = world.train({0: lost})
        assert lost.hits and len(reports) == 2
        # own weights of one exchange ago; gap = (7, 10.5) - (2.5, 7.75)
        assert bases(world.runs[0])[:2] == [(*OWN[0], 2), (5.875, 9.8125, 3)]


def test_own_weights_survive_the_job(tools):
    with tools.world([8], plan_of(tools, epochs=2), rule=elastic()) as world:
        world.work(0, stop=1)
        world.coordinator.begin_job(1000)
        run = world.run(0, 1000)
        assert (run.welcome.start.epoch, own_of(run, 2)[:2].tolist()) == (1, list(OWN[1]))


@pytest.mark.parametrize("exchanges", [1, 4])
def test_own_weights_of_another_time_do_not_count(tools, exchanges):
    with tools.world([8], plan_of(tools), rule=elastic()) as world:
        world.train()
        assert np.isnan(own_of(world.runs[0], exchanges)).all()
        assert not np.isnan(own_of(world.runs[0], 3)[:2]).any()


@settings(max_examples=20)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.sampled_from(["epoch", "batch", 2]),
       st.integers(1, 4))  # fmt: skip
def test_the_spring_neither_makes_nor_loses_anything(tools, sizes, frequency, number):
    """The centre and all replicas together change by what the batches change, whoever dies."""
    plan = tools.plan(frequency=frequency)
    starts, restore = {}, PushedWeights.restore

    def noted(own, base, exchanges):
        restore(own, base, exchanges)
        if not exchanges:  # a shard begins at the centre, wherever that is by then
            starts[own._folder] = base[:2].astype("f8")

    with tools.world(sizes, plan, rule=elastic(0.5)) as world, pytest.MonkeyPatch.context() as m:
        m.setattr(PushedWeights, "restore", noted)
        reports = world.train({0: tools.at("push", number)})
        for report in reports:
            assert len(report.staleness) == sum(plan.exchanges(plan.batches(n)) for n in sizes)
        total = world.aggregator.weights[:2].astype("f8")
        for run in world.runs:
            total += own_of(run, 2 * run.exchanges)[:2]
        ids = np.concatenate(list(world.ids.values()))
        total -= sum(starts.values())
        np.testing.assert_allclose(total, [2 * len(ids), 2 * ids.sum()], rtol=1e-5, atol=1e-4)


def test_a_push_that_comes_twice_moves_the_replica_alone(tools):
    with tools.world([8], plan_of(tools), rule=elastic()) as world:
        world.coordinator.hello(0, 0)
        vector, out = np.array([4, 6, 1], "f4"), np.empty(3, "f4")
        for gap in ([4, 6, 1], [3, 4.5, 1]):
            version, _ = world.coordinator.push(0, 0, 1, 0, 4, vector, out)
            assert (version, out.tolist()) == (1, gap)
        assert world.aggregator.weights.tolist() == [1, 1.5, 1]


def at_most_five(weights):
    np.minimum(weights[:2], 5, out=weights[:2])


@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
def test_constraints_hold_for_the_weights_of_replicas(tools, monkeypatch, mode):
    """Momentum carries them out of the set otherwise, even if the centre is in it."""
    monkeypatch.setattr(tools.replica, "projection", staticmethod(at_most_five))
    plan = plan_of(tools, mode=mode, frequency=1)
    with tools.world([8], plan, rule=elastic(momentum=0.5)) as world:
        world.train()
        assert bases(world.runs[0])[-1][:2] == (5, 5)
        assert max(max(base[:2]) for base in bases(world.runs[0])) == 5
