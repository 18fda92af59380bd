"""Synchronous replicas: merged as one machine would, and the same to the bit when one dies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark.live.meeting_loop import EpochRestart, run_meetings
from kspark.live.wire import Instructions

skewed = st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any)


def merged_deltas(world, epochs):
    """Local SGD by hand: at each exchange the example-weighted mean of what the shards did."""
    plan, weights = world.plan, np.zeros(3)
    batches = max(plan.batches(n) for n in world.counts.values())
    local = plan.local_batches(batches)
    for _ in range(epochs):
        for exchange in range(max(plan.exchanges(plan.batches(n)) for n in world.counts.values())):
            rows = slice(
                exchange * local * plan.batch_size, (exchange + 1) * local * plan.batch_size
            )
            parts = [ids[rows] for ids in world.ids.values() if len(ids[rows])]
            deltas = [[len(p), p.sum(), -(-len(p) // plan.batch_size)] for p in parts]
            weights += np.average(deltas, axis=0, weights=[len(p) for p in parts])
    return weights


def large_batches(world, epochs, rate=0.5):
    """One machine with all shards' next batches as one: gradients (1, mean id), plain SGD."""
    weights, size = np.zeros(2), world.plan.batch_size
    steps = max(world.plan.batches(n) for n in world.counts.values())
    for _ in range(epochs):
        for step in range(steps):
            batch = np.concatenate([i[step * size : (step + 1) * size] for i in world.ids.values()])
            weights -= rate * np.array([1, batch.mean()])
    return weights


@settings(max_examples=20)
@given(skewed, st.integers(1, 5), st.integers(1, 7), st.sampled_from([5, 1000]))
def test_deltas_of_skewed_shards_are_merged_by_their_examples(
    tools, sizes, frequency, batch_size, window_rows
):
    plan = tools.plan("synchronous", frequency, batch_size=batch_size, shuffle=False)
    with tools.world(sizes, plan, window_rows=window_rows) as world:
        for report in world.train():
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
        expected = merged_deltas(world, 2)
        np.testing.assert_allclose(world.aggregator.weights, expected, rtol=1e-5)
        for run in world.runs:  # everybody leaves with the merged weights
            np.testing.assert_array_equal(run.replica.vector, world.aggregator.weights)


@settings(max_examples=20)
@given(skewed, st.integers(1, 7), st.sampled_from([5, 1000]))
def test_gradients_of_skewed_shards_are_those_of_one_large_batch(
    tools, sizes, batch_size, window_rows
):
    plan = tools.plan("synchronous", "batch", batch_size=batch_size, shuffle=False)
    with tools.world(sizes, plan, window_rows=window_rows) as world:
        for report in world.train():
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
        np.testing.assert_allclose(
            world.aggregator.weights[:2], large_batches(world, 2), rtol=1e-4, atol=1e-4
        )
        # State is averaged by the shards' examples, from each epoch's common start.
        counts = [n for n in sizes if n]
        per_epoch = np.average([plan.batches(n) for n in counts], weights=counts)
        np.testing.assert_allclose(world.aggregator.weights[2], 2 * per_epoch, rtol=1e-5)
        steps = 2 * max(plan.batches(n) for n in counts)
        assert {run.replica.steps for run in world.runs} == {steps}  # in step with the longest
        assert len({run.replica.vector.tobytes() for run in world.runs}) == 1


@pytest.mark.parametrize("frequency", [2, "batch"])
def test_shuffled_training_is_the_same_to_the_bit_each_time(tools, frequency):
    results = set()
    for _ in range(5):
        with tools.world([17, 30, 9], tools.plan("synchronous", frequency)) as world:
            world.train()
            results.add(world.aggregator.weights.tobytes())
    assert len(results) == 1


MOMENTS = [
    (kind, number, when)
    for kind, last in (("reduce", 6), ("pull", 2), ("metrics", 2), ("state", 2), ("epoch", 2))
    for number in range(1, last + 1)
    for when in ("before", "after")
]


@pytest.mark.parametrize("frequency", [1, "batch"])
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: "-".join(map(str, m)))
def test_a_replica_that_dies_changes_nothing(tools, frequency, moment):
    """Not the weights, not the metrics, not the optimizers' steps: the epoch starts again."""

    def train(disturb):
        plan = tools.plan("synchronous", frequency)
        with tools.world([12, 8], plan, rule="average") as world:
            reports = world.train(disturb)
            seen = [world.seen(r).tolist() for r in reports]
            steps = [run.kept_state()[0][0] for run in world.runs]
            return world.aggregator.weights.tobytes(), seen, steps

    disturb = tools.at(*moment)
    expected = train({})
    assert train({0: disturb}) == expected
    assert disturb.hits


def test_two_that_die_one_after_the_other_change_nothing(tools):
    def train(disturb):
        with tools.world([20, 20, 20], tools.plan("synchronous", "batch")) as world:
            world.train(disturb)
            return world.aggregator.weights.tobytes()

    disturb = {0: tools.at("reduce", 2), 2: tools.at("reduce", 4, "after")}
    assert train(disturb) == train({})
    assert all(d.hits for d in disturb.values())


def test_momentum_of_an_abandoned_try_is_forgotten(tools):
    rule = {"class_name": "sgd", "config": {"learning_rate": 0.5, "momentum": 0.5}}

    def train(disturb):
        with tools.world([20, 20], tools.plan("synchronous", 2, epochs=3), rule=rule) as world:
            world.train(disturb)
            return world.aggregator.weights.tobytes()

    assert train({1: tools.at("reduce", 5)}) == train({})


def test_a_replica_without_its_state_takes_the_leaders(tools, monkeypatch):
    """Its files are gone with its host; its weights come from the aggregator anyway."""
    take = tools.replica.set_optimizer_state

    def with_the_rate_of_the_epoch_before(replica, values):
        take(replica, values)
        replica.learning_rate = 7.0

    monkeypatch.setattr(tools.replica, "set_optimizer_state", with_the_rate_of_the_epoch_before)
    plan = tools.plan("synchronous", "batch", epochs=3)
    with tools.world([8, 8], plan) as world:

        def lose(kind, number, when):
            if (kind, number, when) == ("reduce", 5, "before"):  # of the second epoch
                for file in (world.run_folders[1]).glob("*.state"):
                    file.unlink()
                raise tools.lost

        world.run_folders = {1: world.run(1).state.folder}
        world.coordinator.begin_job(0)
        world.train({1: lose}, learning_rate=0.25)
        assert [run.replica.steps for run in world.runs] == [6, 6]
        assert [run.replica.learning_rate for run in world.runs] == [0.25, 0.25]
        asked = [m for m in world.runs[1].client.reports if m["kind"] == "state_request"]
        assert asked == [{"kind": "state_request", "epoch": 0}]
        # Everybody else has its own.
        assert "state_request" not in [m["kind"] for m in world.runs[0].client.reports]


def test_only_the_first_replica_tells_its_optimizers_state(tools):
    with tools.world([8, 8], tools.plan("synchronous", "batch")) as world:
        world.train()
        told = [[m for m in r.client.reports if m["kind"] == "state"] for r in world.runs]
    assert told == [[{"kind": "state", "epoch": 0}, {"kind": "state", "epoch": 1}], []]


def test_gradient_merging_is_checked_once_on_real_rows(tools):
    with tools.world([9, 4], tools.plan("synchronous", "batch")) as world:
        world.train()
        checks = [[c for c in r.replica.calls if c[0][:5] == "check"] for r in world.runs]
    assert checks == [[("check_gradient_merging", 9)], [("check_gradient_merging", 4)]]


def test_deltas_need_no_such_check(tools):
    with tools.world([9], tools.plan("synchronous", 2)) as world:
        world.train()
        assert {c[0] for c in world.runs[0].replica.calls} == {"set_vector"}


def test_stops_at_the_drivers_word(tools):
    with tools.world([8, 8], tools.plan("synchronous", 1, epochs=50)) as world:
        assert len(world.train(stop_after=1)) == 2
        assert world.aggregator.version == 2 * 2


def test_a_replica_that_comes_after_the_end_of_training_leaves(tools):
    with tools.world([8, 8], tools.plan("synchronous", 1, epochs=50)) as world:
        run = world.run(0)
        run.instructions = Instructions(stop=True)
        run_meetings(run)
        assert run.client.reports == []


@pytest.mark.parametrize("frequency", [1, "batch"])
@pytest.mark.parametrize("word", [{"learning_rate": 0.25}, {"stop": True, "learning_rate": None}])
def test_a_replica_that_comes_between_epochs_hears_of_the_next_one(tools, frequency, word):
    """It connects when all are through with an epoch, and the driver has not closed it yet."""
    with (
        tools.world([12, 8], tools.plan("synchronous", frequency)) as world,
        ThreadPoolExecutor(2) as pool,
    ):
        try:
            other = world.run(1)
            staying = pool.submit(run_meetings, other)
            pool.submit(run_meetings, world.run(0, stop=1)).result(10)
            while world.coordinator.wait_for_epoch(0, 0.05) is None:
                pass
            late = world.run(0, 1)
            world.coordinator.close_epoch(0, **{"stop": False, **word})
            pool.submit(run_meetings, late).result(10)
            staying.result(10)
        finally:
            world.coordinator.close()
    assert {run.stopped for run in (late, other)} == {"stop" in word}
    assert {run.replica.learning_rate for run in (late, other)} == {word["learning_rate"] or 0.5}
    assert "stop" in word or np.array_equal(late.replica.vector, other.replica.vector)


def test_jobs_that_end_before_the_fit_go_on_where_they_left(tools):
    """One job per validated epoch."""

    def train(stops):
        with tools.world([12, 8], tools.plan("synchronous", "batch", epochs=3)) as world:
            return world.train_in_jobs(stops)

    assert train([1, 2, 3]) == train([3]) == train([2, 3])


def test_a_restart_says_which_epoch_and_which_try():
    restart = EpochRestart(4, 2)
    assert (restart.epoch, restart.generation) == (4, 2)
    assert str(restart) == "Epoch 5 starts again, try 3."
