"""Rows that a function makes: nobody knows how many, and all replicas end an epoch together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark.live.push_loop import run_shared
from kspark.live.shared_memory import SharedWeights
from kspark.live.wire import SharedOffer
from kspark.worker import streaming

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=4)
frequencies = st.one_of(st.just("epoch"), st.just("batch"), st.integers(1, 5))


@pytest.fixture(params=["one window", "many windows"], autouse=True)
def windows(request, monkeypatch):
    """All rows in a window, or windows that end as soon as they have a batch."""
    if request.param == "many windows":
        monkeypatch.setattr(streaming, "WINDOW_BYTES", 1)


def whole(world, epochs):
    """Weights after so many epochs, if every row's change is applied once: rows and sum of ids."""
    ids = np.concatenate(list(world.ids.values()))
    return [epochs * len(ids), epochs * ids.sum()]


@settings(max_examples=15)
@given(sizes, st.integers(1, 7), st.booleans())
def test_gradients_are_merged_until_no_replica_has_a_batch_left(tools, counts, batch_size, near):
    """Near each other, or at the driver. State is averaged by the examples that were trained."""
    plan = tools.plan("synchronous", "batch", batch_size=batch_size)
    with tools.world(counts, plan, streams=True, near=near) as world:
        for report in world.train():
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
            told = {s: (f.num_examples, f.batches) for s, f in report.facts.items()}
            assert told == {s: (n, plan.batches(n)) for s, n in enumerate(counts)}
        steps = 2 * max(plan.batches(n) for n in counts)
        assert {run.replica.steps for run in world.runs} == {steps}  # in step with the longest
        assert len({run.replica.vector.tobytes() for run in world.runs}) == 1
        per_epoch = np.average([plan.batches(n) for n in counts], weights=counts)
        np.testing.assert_allclose(world.aggregator.weights[2], 2 * per_epoch, rtol=1e-5)


@settings(max_examples=15)
@given(sizes, st.integers(1, 5), st.sampled_from(["average", "elastic_average"]))
def test_deltas_are_merged_until_no_replica_has_a_batch_left(tools, counts, frequency, rule):
    plan = tools.plan("synchronous", frequency)
    with tools.world(counts, plan, streams=True, rule=rule) as world:
        for report in world.train():
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
        if rule == "average" and len(counts) == 1:
            assert world.aggregator.weights[:2].tolist() == whole(world, 2)


@settings(max_examples=20)
@given(sizes, st.sampled_from(["asynchronous", "hogwild"]), frequencies, st.integers(1, 7),
       st.sampled_from([None, 0, 2]))  # fmt: skip
def test_every_row_is_trained_once_per_epoch_and_every_delta_arrives(
    tools, counts, mode, frequency, batch_size, bound
):
    bound = bound if mode == "asynchronous" else None
    plan = tools.plan(mode, frequency, batch_size=batch_size, epochs=3, max_staleness=bound)
    with tools.world(counts, plan, rule="downpour", streams=True) as world:
        for report in world.train():
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
            assert len(report.staleness) == sum(plan.exchanges(plan.batches(n)) for n in counts)
            assert {s: f.num_examples for s, f in report.facts.items()} == dict(enumerate(counts))
        if mode == "asynchronous":
            assert world.aggregator.weights[:2].tolist() == whole(world, 3)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "number"),
    [("pull", 1), *[("push", n) for n in range(1, 7)], ("metrics", 1), ("epoch", 1), ("epoch", 2)],
)
def test_a_retried_task_reads_from_the_beginning_and_pushes_nothing_twice(
    tools, kind, number, when
):
    """Shard 0 has three exchanges an epoch. "after": the driver did it, the answer was lost."""
    plan, disturb = tools.plan("asynchronous", 2), tools.at(kind, number, when)
    with tools.world([24, 9], plan, rule="downpour", streams=True) as world:
        reports = world.train({0: disturb})
        assert disturb.hits
        assert world.aggregator.weights[:2].tolist() == whole(world, 2)
        assert world.aggregator.version == sum(len(r.staleness) for r in reports) == 2 * (3 + 2)
        assert [sorted(r.metrics) for r in reports] == [[0, 1]] * 2


@pytest.mark.parametrize("frequency", [1, "batch"])
@pytest.mark.parametrize("moment", [("reduce", 2), ("reduce", 6), ("metrics", 1), ("epoch", 1)])
def test_a_synchronous_replica_that_dies_changes_nothing(tools, frequency, moment):
    """The epoch starts again, with the same rows: the seed depends on worker and epoch alone."""

    def train(disturb):
        with tools.world([12, 8], tools.plan("synchronous", frequency), streams=True) as world:
            world.train(disturb)
            return world.aggregator.weights.tobytes()

    disturb = tools.at(*moment)
    assert train({1: disturb}) == train(None)
    assert disturb.hits


def test_jobs_that_end_before_the_fit_go_on_where_they_left(tools):
    """Near each other, replicas find the number of the next exchange in the shared memory."""
    results = set()
    for stops in ([3], [1, 3], [1, 2, 3]):
        with tools.world([17, 6], tools.plan("synchronous", "batch", epochs=3), near=True,
                         streams=True) as world:  # fmt: skip
            results.add(str(world.train_in_jobs(stops)))
    assert len(results) == 1


@pytest.mark.parametrize("moment", [("pull", 2), ("reduce", 1), ("epoch", 1)])
def test_a_replica_that_dies_near_the_others_changes_nothing(tools, moment):
    """From then on they meet at the driver."""

    def train(disturb):
        plan = tools.plan("synchronous", "batch", epochs=3)
        with tools.world([12, 8], plan, near=True, streams=True) as world:
            world.train(disturb)
            return world.aggregator.weights.tobytes()

    assert train({1: tools.at(*moment)}) == train(None)


@pytest.mark.parametrize("dies", [False, True])
def test_replicas_that_share_weights_find_their_place(tools, dies):
    """The second attempt begins after the exchanges that the first one has counted."""
    plan = tools.plan("hogwild", 2, epochs=2)
    with tools.world([24], plan, streams=True) as world:
        shared = SharedWeights.create(world.aggregator.weights, tools.weights, 1)
        world.coordinator.offers[0] = offer = SharedOffer(shared.path, shared.mark.hex(), (0,), 0)
        try:
            if dies:
                replica_dies_after_four_exchanges(tools, world, shared, offer)
            with ThreadPoolExecutor(1) as pool:
                future = pool.submit(run_shared, world.run(0, 1), shared, offer)
                world.drive([future])
                future.result(30)
            assert shared.vector[:2].tolist() == whole(world, 2)
            assert int(shared.pushes[0]) == 6
        finally:
            shared.unlink()


def replica_dies_after_four_exchanges(tools, world, shared, offer):
    """One epoch and an exchange."""
    run = world.run(0, 0)
    add = run.replica.train_exchanging

    def train_exchanging(window, batch_size, start, stops, exchange):
        def counted(vector, count):
            if int(shared.pushes[0]) == 4:
                raise tools.lost
            return exchange(vector, count)

        add(window, batch_size, start, stops, counted)

    run.replica.train_exchanging = train_exchanging
    with pytest.raises(tools.lost):
        run_shared(run, shared, offer)
    world.coordinator.lost(0, 0, "a test took it down")


def test_a_number_of_steps_goes_round_the_data(tools):
    """Ten steps for two replicas. That with two batches per pass calls its function three times."""
    plan = tools.plan("synchronous", "batch", steps_per_epoch=10, epochs=1)
    with tools.world([8, 40], plan, streams=True) as world:
        (report,) = world.train()
        assert [report.facts[s].batches for s in (0, 1)] == [5, 5]
        assert world.seen(report)[:8].sum() == 20
        calls = world.fit_task.stream.seeds
        assert len(calls[0]) == 3 and len(set(calls[0])) == 3
        assert len(calls[1]) == 1
