"""Asynchronous and hogwild replicas: every row counts once per epoch, whatever dies when."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark import temporary
from kspark.errors import AggregationError
from kspark.live.push_loop import find_shared, run_pushes, run_shared
from kspark.live.shared_memory import SharedWeights
from kspark.live.wire import Instructions, SharedOffer

counts = st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any)
frequencies = st.one_of(st.just("epoch"), st.just("batch"), st.integers(1, 5))


def whole(world, epochs):
    """Weights after so many epochs, if every row's change is applied once: rows and sum of ids."""
    ids = np.concatenate(list(world.ids.values()))
    return [epochs * len(ids), epochs * ids.sum()]


@contextmanager
def sharing(world, scale=1.0, share=1.0):
    """What the driver does so that replicas of its own host share memory."""
    shards = tuple(sorted(world.coordinator.shards))
    shared = SharedWeights.create(world.aggregator.weights, world.aggregator.spec, len(shards))
    world.aggregator.weights = shared.vector
    common = {"path": shared.path, "mark": shared.mark.hex(), "shards": shards}
    world.coordinator.offers = {
        s: SharedOffer(**common, slot=slot, scale=scale, share=share)
        for slot, s in enumerate(shards)
    }
    world.coordinator.apart = lambda s, attempt: shared.admit(shards.index(s), attempt)
    try:
        yield shared
    finally:
        shared.unlink()


@settings(max_examples=30)
@given(counts, st.sampled_from(["asynchronous", "hogwild"]), frequencies, st.integers(1, 7),
       st.sampled_from([5, 1000]), st.integers(0, 1))  # fmt: skip
def test_every_row_is_trained_once_per_epoch_and_every_delta_arrives(
    tools, sizes, mode, frequency, batch_size, window_rows, first
):
    """Deltas do not depend on the weights here, so their sum is known in any order."""
    plan = tools.plan(mode, frequency, batch_size=batch_size, epochs=3, initial_epoch=first)
    with tools.world(sizes, plan, rule="downpour", window_rows=window_rows) as world:
        reports = world.train()
        assert len(reports) == 3 - first
        for report in reports:
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
            assert len(report.staleness) == sum(plan.exchanges(plan.batches(n)) for n in sizes)
            assert {s: f.num_examples for s, f in report.facts.items()} == {
                s: n for s, n in enumerate(sizes) if n
            }
        if mode == "asynchronous":
            assert world.aggregator.weights[:2].tolist() == whole(world, 3 - first)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "number"),
    [("pull", 1), *[("push", n) for n in range(1, 7)], ("metrics", 1), ("metrics", 2),
     ("epoch", 1), ("epoch", 2)],
)  # fmt: skip
def test_a_replica_may_die_at_any_message_and_its_next_attempt_goes_on(tools, kind, number, when):
    """Shard 0 has three exchanges an epoch. "after": the driver did it, the answer was lost."""
    plan = tools.plan("asynchronous", 2)
    disturb = tools.at(kind, number, when)
    with tools.world([24, 9], plan, rule="downpour") as world:
        reports = world.train({0: disturb})
        assert disturb.hits
        assert world.aggregator.weights[:2].tolist() == whole(world, 2)
        assert world.aggregator.version == sum(len(r.staleness) for r in reports) == 2 * (3 + 2)
        assert [sorted(r.metrics) for r in reports] == [[0, 1]] * 2
        # A report lost with its replica is told by the next attempt, of the rows it trained.
        last = np.flatnonzero(world.seen(reports[1]))
        assert set(last) <= set(np.flatnonzero(world.all_ids))


def test_a_replica_that_goes_on_knows_its_shards_state(tools):
    """It dies at the first push of the second epoch, after six batches of the first."""
    plan = tools.plan("asynchronous", "batch", shuffle=False)
    with tools.world([24], plan) as world:
        world.train({0: tools.at("push", 8)})
        run = world.runs[0]
        assert run.replica.steps == 6 + 5  # the state after the first epoch, and what was left
        assert run.client.reports[-1] == {"kind": "epoch", "epoch": 1, "sequence": 12}
        trained = np.flatnonzero(run.replica.seen).tolist()
        assert trained == list(range(4, 24))


def test_each_push_says_what_it_is_based_on(tools):
    plan = tools.plan("asynchronous", "batch", shuffle=False, epochs=1)
    with tools.world([10], plan) as world:
        run, pushed = world.run(0), []
        original = run.client.push

        def push(delta, **fields):
            assert fields.pop("out") is not None
            pushed.append({**fields, "delta": delta.tolist()})
            world.aggregator.replace(np.full(3, 100, "f4"))  # another replica
            return original(delta, out=np.empty(3, "f4"), **fields)

        run.client.push = push
        run_pushes(run)
    assert pushed == [
        {"sequence": 1, "base_version": 0, "num_examples": 4, "delta": [4, 6, 1]},
        {"sequence": 2, "base_version": 2, "num_examples": 4, "delta": [4, 22, 1]},
        {"sequence": 3, "base_version": 4, "num_examples": 2, "delta": [2, 17, 1]},
    ]


def test_training_goes_on_from_the_weights_that_come_back(tools):
    plan = tools.plan("asynchronous", "batch", epochs=1)
    with tools.world([8], plan, rule="downpour") as world:
        world.aggregator.replace(np.array([5, 5, 5], "f4"))
        run = world.run(0)
        original = run.client.push

        def push(delta, **fields):
            world.aggregator.weights += 10
            return original(delta, **fields)

        run.client.push = push
        run_pushes(run)
        bases = [vector for _, vector in run.replica.calls]
    assert bases[0] == [5, 5, 5]
    assert bases[1][0] == 5 + 10 + 4


def test_metrics_are_told_before_the_last_push_so_that_they_cannot_be_lost(tools):
    with tools.world([12], tools.plan(epochs=1)) as world:
        run = world.run(0)
        kinds = []
        run.client._disturb = lambda kind, number, when: kinds.append(kind)
        run_pushes(run)
    assert kinds[::2] == ["pull", "push", "push", "metrics", "push", "epoch"]


def test_stops_at_the_drivers_word_at_once(tools):
    """Nobody counts what it would still push."""
    with tools.world([40], tools.plan(epochs=9)) as world:

        def stop(kind, number, when):
            if (kind, when) == ("pull", "after"):
                world.coordinator.instructions = Instructions(stop=True)

        run = world.run(0, disturb=stop)
        run_pushes(run)
        assert world.aggregator.version == 1
        run_pushes(world.run(0, 1))  # the welcome says it
        assert world.aggregator.version == 1
        run = world.run(0, 2)
        run.instructions = Instructions()
        run_pushes(run)  # the weights to begin with say it
        assert world.aggregator.version == 1


def test_stops_after_the_epoch_at_which_training_ended(tools):
    with tools.world([40, 8], tools.plan("asynchronous", "epoch", epochs=50)) as world:
        assert len(world.train(stop_after=1)) == 2
        assert world.aggregator.version < 2 * 50


def test_the_end_of_the_job_comes_before_the_end_of_the_fit(tools):
    with tools.world([8], tools.plan(epochs=9)) as world:
        run_pushes(world.run(0, stop=2))
        assert world.aggregator.version == 4
        run_pushes(world.run(0, 1000, stop=2))  # nothing is left to do
        assert world.aggregator.version == 4


def test_the_next_job_goes_on_with_the_drivers_learning_rate(tools):
    with tools.world([8], tools.plan(epochs=2)) as world:
        run = world.run(0)
        original = run.client.report

        def report(meta, arrays=()):
            if meta["kind"] == "epoch":
                world.coordinator.instructions = Instructions(learning_rate=0.25)
            return original(meta, arrays)

        run.client.report = report
        run_pushes(run)
        assert run.replica.learning_rate == 0.25


# -- shared memory ------------------------------------------------------------------------------


@settings(max_examples=20)
@given(counts, frequencies, st.integers(1, 7))
def test_shared_memory_trains_every_row_once_per_epoch(tools, sizes, frequency, batch_size):
    plan = tools.plan("hogwild", frequency, batch_size=batch_size)
    with tools.world(sizes, plan) as world, sharing(world) as shared:
        for report in world.train():
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
            assert report.staleness == []
        assert shared.pushes.tolist() == [2 * plan.exchanges(plan.batches(n)) for n in sizes if n]
        assert world.aggregator.version == 0  # nothing went through the aggregator


def test_shared_memory_adds_scaled_deltas_to_what_is_there_by_then(tools):
    with (
        tools.world([10], tools.plan("hogwild", 2, epochs=1, shuffle=False)) as world,
        sharing(world, scale=0.5, share=0.25) as shared,
    ):
        shared.vector += 8
        run = world.run(0)
        original = run.replica.train

        def train(*args):
            original(*args)
            shared.vector[0] += 100  # another replica, meanwhile

        run.replica.train = train
        run_shared(run, *find_shared(run))
        assert run.replica.calls[0] == ("set_vector", [8, 8, 8])
        assert run.replica.calls[1][1] == [8 + 100 + 4, 8 + 14, 8 + 0.5]
        assert shared.vector.tolist() == [8 + 200 + 5, 8 + 45 / 2, 8 + 3 / 4]


def test_an_attempt_that_was_superseded_adds_nothing_more(tools):
    with tools.world([12], tools.plan("hogwild", 1, epochs=1)) as world, sharing(world) as shared:
        run = world.run(0, attempt=1)
        original = run.replica.train

        def train(*args):
            original(*args)
            if shared.pushes[0] == 1:
                shared.owners[0] = 2  # the next attempt begins

        run.replica.train = train
        with pytest.raises(AggregationError, match="A newer attempt trains this shard"):
            run_shared(run, *find_shared(run))
        assert shared.pushes.tolist() == [1]
        assert shared.vector[2] == 1  # batches


@pytest.mark.parametrize(
    ("kind", "number"), [("metrics", 1), ("metrics", 2), ("epoch", 1), ("epoch", 2)]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_in_shared_memory_too_the_next_attempt_goes_on(tools, kind, number, when):
    disturb = tools.at(kind, number, when)
    plan = tools.plan("hogwild", 2)
    with tools.world([24], plan) as world, sharing(world) as shared:
        reports = world.train({0: disturb})
        assert disturb.hits
        assert len(reports) == 2
        assert shared.pushes.tolist() == [6]
        assert shared.vector[:2].tolist() == whole(world, 2)


def test_an_attempt_after_all_was_done_says_so(tools):
    """The first one died after its last push, before it said that the epoch is done."""
    with (
        tools.world([8], tools.plan("hogwild", "batch", epochs=2)) as world,
        sharing(world) as shared,
    ):
        shared.pushes[0] = 4
        run = world.run(0)
        run_shared(run, *find_shared(run))
        assert run.client.reports == [{"kind": "epoch", "epoch": 1, "sequence": 4}]
        assert world.coordinator.wait_for_epoch(1, 0) is not None
        assert shared.vector.tolist() == [0, 0, 0]


def test_a_shard_may_move_to_another_host_and_back(tools):
    """Pushes over TCP are counted by the coordinator, those into memory by the counters."""
    with (
        tools.world([8], tools.plan("hogwild", "batch", epochs=3), rule="downpour") as world,
        sharing(world) as shared,
    ):
        first = world.run(0, stop=1)
        run_shared(first, *find_shared(first))
        run_pushes(world.run(0, 1, stop=2))
        assert shared.pushes.tolist() == [2]
        last = world.run(0, 2)
        run_shared(last, *find_shared(last))
        assert shared.pushes.tolist() == [6]
        assert shared.vector[:2].tolist() == whole(world, 3)


@pytest.mark.parametrize("dies", [1, 2, 3])
def test_a_shard_may_move_to_another_host_in_the_middle_of_an_epoch(tools, dies):
    """The driver does not get pushes into memory, but its welcome counts them."""
    plan = tools.plan("hogwild", "batch", epochs=2)
    with tools.world([16], plan, rule="downpour") as world, sharing(world) as shared:
        first, original = world.run(0), SharedWeights.add

        def add(*args):
            if shared.pushes[0] == dies:
                raise ConnectionError("killed")
            original(shared, *args)

        found, offer = find_shared(first)
        found.add = add
        with pytest.raises(ConnectionError, match="killed"):
            run_shared(first, found, offer)
        run_pushes(world.run(0, 1))
        assert shared.vector[0] == 32  # Each row counts once per epoch.
        with pytest.raises(AggregationError, match="newer attempt"):
            original(shared, 0, 0, dies + 1, np.ones(3, "f4"))
        assert shared.vector[0] == 32


def test_shared_memory_stops_at_the_drivers_word(tools):
    with (
        tools.world([8], tools.plan("hogwild", "batch", epochs=9)) as world,
        sharing(world) as shared,
    ):
        run = world.run(0)
        world.coordinator.instructions = Instructions(stop=True)
        run_shared(run, *find_shared(run))
        assert shared.pushes.tolist() == [2]  # one epoch
        again = world.run(0, 1)
        run_shared(again, *find_shared(again))
        assert shared.pushes.tolist() == [2]


def test_memory_is_shared_only_if_it_is_offered_and_found(tools, tmp_path, monkeypatch):
    monkeypatch.setattr(temporary, "MEMORY", str(tmp_path))
    with tools.world([8, 8], tools.plan("hogwild")) as world:
        assert find_shared(world.run(1)) is None
        with sharing(world, scale=0.25):
            found, offer = find_shared(world.run(1, 1))
            assert (found.vector.size, offer.slot, offer.scale) == (3, 1, 0.25)
            world.coordinator.offers[1] = replace(offer, mark="00" * 32)
            assert find_shared(world.run(1, 2)) is None
