"""Replicas that may run ahead of each other only so far: whole fits, whatever dies when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark import optimizers
from kspark.live.push_loop import run_pushes
from kspark.live.transport import Reply
from kspark.live.wire import Instructions, Start, Welcome

counts = st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any)
frequencies = st.one_of(st.just("epoch"), st.just("batch"), st.integers(1, 5))


def bases(run):
    """Where the replica's local training began."""
    return [values for kind, values in run.replica.calls if kind == "set_vector"]


def distinct(vectors):
    """Without repetitions: a synchronous epoch puts its first weights into the replica twice."""
    return list(dict.fromkeys(tuple(vector) for vector in vectors))


def rows_and_ids(world, epochs):
    ids = np.concatenate(list(world.ids.values()))
    return [epochs * len(ids), epochs * ids.sum()]


@settings(max_examples=30)
@given(counts, frequencies, st.integers(0, 3))
def test_every_delta_arrives_and_none_is_staler_than_the_bound_allows(
    tools, sizes, frequency, bound
):
    plan = tools.plan("asynchronous", frequency, epochs=3, max_staleness=bound)
    with tools.world(sizes, plan, rule="downpour") as world:
        reports = world.train()
        for report in reports:
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
            limit = (len(world.coordinator.shards) - 1) * (2 * bound + 1)
            assert max(report.staleness) <= limit
        assert world.aggregator.weights[:2].tolist() == rows_and_ids(world, 3)


@settings(max_examples=30)
@given(counts, frequencies, st.integers(0, 2), st.sampled_from(["before", "after"]),
       st.sampled_from(["pull", "push", "epoch"]), st.integers(1, 6))  # fmt: skip
def test_nobody_waits_for_ever_whoever_dies(tools, sizes, frequency, bound, when, kind, number):
    plan = tools.plan("asynchronous", frequency, max_staleness=bound)
    with tools.world(sizes, plan, rule="downpour") as world:
        first = min(world.coordinator.shards)
        world.train({first: tools.at(kind, number, when)})
        assert world.aggregator.weights[:2].tolist() == rows_and_ids(world, 2)


@pytest.mark.parametrize("frequency", [1, 2, "epoch"])
def test_a_bound_of_zero_trains_as_synchronous_replicas_do(tools, frequency):
    """Shards of the same size: their shares are those of each exchange as well."""
    trained = []
    for mode, bound in (("synchronous", None), ("asynchronous", 0)):
        plan = tools.plan(mode, frequency, epochs=3, max_staleness=bound)
        with tools.world([16, 16], plan) as world:
            world.train()
            weights = tuple(world.aggregator.weights)
            trained.append((weights, [distinct(bases(run)) for run in world.runs]))
    assert trained[0] == trained[1]
    assert trained[0][1][0] == trained[0][1][1]


class Script:
    """A client that gets one answer after the other: version, weights, instructions."""

    def __init__(self, *answers):
        self.answers, self.pushed, self.reports = list(answers), [], []
        self.seconds_waiting = self.bytes_sent = self.bytes_received = 0
        self.attempt = 0

    def pull(self, out):
        version, value, instructions = self.answers.pop(0)
        out[:] = value
        return Reply(version, instructions, out.size)

    def push(self, delta, *, sequence, base_version, num_examples, out):
        self.pushed.append((sequence, base_version, delta.tolist()))
        return self.pull(out)

    def connect(self):
        return Welcome(2, True, 0, Start(0))

    def report(self, meta, arrays=()):
        self.reports.append(meta["kind"])
        return {}, []


GO, HOLD, STOP = Instructions(), Instructions(hold=True), Instructions(stop=True)


def test_who_is_held_asks_until_it_may_go_on_and_takes_the_last_answer(tools):
    script = Script((1, 7, HOLD), (2, 8, HOLD), (3, 10, GO), (4, 0, HOLD), (5, 0, HOLD),
                    (9, 20, GO), (10, 30, GO))  # fmt: skip
    with tools.world([8], tools.plan(epochs=1, shuffle=False), rule="downpour") as world:
        run = world.run(0, client=script)
        run_pushes(run)
    assert script.pushed == [(1, 3, [4, 6, 1]), (2, 9, [4, 22, 1])]
    assert bases(run) == [[10] * 3, [20] * 3, [30] * 3]
    assert not script.answers


def test_weights_of_its_own_are_moved_by_the_first_answer(tools):
    rule = optimizers.ElasticAverage(1.0)
    script = Script((3, 10, GO), (4, 2, HOLD), (9, 99, GO), (10, 0, GO))
    with tools.world([8], tools.plan(epochs=1, shuffle=False), rule=rule) as world:
        run = world.run(0, client=script)
        run_pushes(run)
    assert script.pushed == [(1, 3, [14, 16, 1]), (2, 4, [16, 36, 1])]


@pytest.mark.parametrize(
    "answers",
    [[(1, 7, HOLD), (2, 8, replace(HOLD, stop=True))], [(1, 0, GO), (2, 0, HOLD), (3, 0, STOP)]],
)
def test_who_is_held_stops_at_the_drivers_word(tools, answers):
    script = Script(*answers)
    with tools.world([8], tools.plan(epochs=1)) as world:
        run_pushes(world.run(0, client=script))
    assert not script.answers
    assert "epoch" not in script.reports
