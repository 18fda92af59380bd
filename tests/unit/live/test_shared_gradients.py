"""Exact steps on one host: replicas find each other's gradients in a file that they map."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark import temporary
from kspark.errors import AggregationError, ConnectionLostError
from kspark.live import meeting_loop, shared_gradients
from kspark.live.shared_gradients import SharedGradients
from kspark.live.task import choose_loop
from kspark.live.wire.reports import WaitingReport
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, mean_in_order


def spec_of(size=1000, dtype="float32"):
    return WeightSpec((Weight("w", (size,), dtype, TRAINABLE), Weight("s", (2,), dtype, STATE)))


@pytest.fixture
def made():
    spec = spec_of()
    shared = SharedGradients.create(spec, 3)
    yield shared
    shared.unlink()


def never():
    raise AssertionError("asked")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_get_the_mean_of_all_at_every_exchange(dtype):
    spec, exchanges = spec_of(dtype=dtype), 300
    random = np.random.default_rng(0)
    gradients = random.normal(size=(exchanges, 3, 1000)).astype(dtype)
    counts = random.integers(0, 3, size=(exchanges, 3))
    counts[:, 0] += 1
    shared = SharedGradients.create(spec, 3)

    def work(slot):
        mine = SharedGradients.find(shared.path, shared.mark, spec, 3)
        means = np.empty((exchanges, 1000), dtype)
        for number in range(exchanges):
            count = int(counts[number, slot])
            given = gradients[number, slot] if count else None
            mine.exchange(slot, number, given, count, means[number], lambda: None)
        return means

    try:
        with ThreadPoolExecutor(3) as pool:
            results = list(pool.map(work, range(3)))
    finally:
        shared.unlink()
    for number in range(exchanges):
        pairs = zip(gradients[number], counts[number].tolist(), strict=True)
        expected = mean_in_order(pairs).tobytes()
        assert {result[number].tobytes() for result in results} == {expected}


def test_the_answer_may_overwrite_the_gradient(made):
    made.reached[1:] = 1
    gradient = np.ones(1000, "f4")
    made.exchange(0, 0, gradient, 4, gradient, never)
    assert gradient.tolist() == [1.0] * 1000


def test_a_gradient_stays_until_all_have_seen_it(made):
    """The next exchange writes to the other side."""
    made.reached[1:] = 1
    made.exchange(0, 0, np.ones(1000, "f4"), 4, np.empty(1000, "f4"), never)
    made.reached[1:] = 2
    made.exchange(0, 1, np.full(1000, 7, "f4"), 4, np.empty(1000, "f4"), never)
    assert [side[0, 0] for side in made.vectors] == [1, 7]


def test_one_that_waits_asks_until_it_is_told_to_stop(made, monkeypatch):
    monkeypatch.setattr(shared_gradients, "ASK_SECONDS", 0.001)
    asked = []

    def ask():
        asked.append(1)
        if len(asked) == 3:
            raise ConnectionLostError("enough")

    with pytest.raises(ConnectionLostError, match="enough"):
        made.exchange(0, 0, np.ones(1000, "f4"), 4, np.empty(1000, "f4"), ask)
    assert len(asked) == 3


def test_there_is_no_mean_without_examples(made):
    made.reached[1:] = 1
    with pytest.raises(AggregationError, match="nothing to average"):
        made.exchange(0, 0, None, 0, np.empty(1000, "f4"), never)


def test_the_file_is_found_by_its_mark_and_only_this_user_may_read_it(made):
    assert SharedGradients.find(made.path, bytes(32), spec_of(), 3) is None
    assert os.stat(made.path).st_mode & 0o077 == 0
    made.unlink()
    assert SharedGradients.find(made.path, made.mark, spec_of(), 3) is None


def test_there_is_no_file_on_disk(tmp_path, monkeypatch):
    """Connections are faster than that."""
    monkeypatch.setattr(temporary, "MEMORY", str(tmp_path / "missing"))
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        SharedGradients.create(spec_of(), 3)
    assert list(tmp_path.iterdir()) == []


# -- in the training loop ---------------------------------------------------------------------


def trained(tools, sizes, plan, disturb=None, **more):
    """Returns the final weights, the rows seen, the optimizers' steps, and the kinds of messages.

    The first replica is lost where `disturb` says.
    """
    with tools.world(sizes, plan, **more) as world:
        reports = world.train({0: disturb} if disturb else {})
        seen = [world.seen(report).tolist() for report in reports]
        steps = [run.kept_state()[0][0] for run in world.runs]
        messages = [run.client._numbers for run in world.runs]
        return (world.aggregator.weights.tobytes(), seen, steps), messages


skewed = st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any)


@settings(max_examples=20)
@given(skewed, st.integers(1, 7), st.sampled_from([5, 1000]))
def test_the_bytes_are_those_of_replicas_that_meet_at_the_driver(
    tools, sizes, batch_size, window_rows
):
    plan = tools.plan("synchronous", "batch", batch_size=batch_size, epochs=3)
    far, messages = trained(tools, sizes, plan, window_rows=window_rows)
    near, fewer = trained(tools, sizes, plan, window_rows=window_rows, near=True)
    assert near == far
    assert {numbers["reduce"] for numbers in fewer} == {3}  # the weights of each epoch
    batches = max(plan.batches(n) for n in sizes)
    assert {numbers["reduce"] for numbers in messages} == {3 * (batches + 1)}


MOMENTS = [
    (kind, number, when)
    for kind in ("reduce", "pull", "metrics", "state", "epoch")
    for number in (1, 2)
    for when in ("before", "after")
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: "-".join(map(str, m)))
def test_a_replica_that_dies_between_two_messages_changes_nothing(tools, moment):
    plan, disturb = tools.plan("synchronous", "batch"), tools.at(*moment)
    expected, _ = trained(tools, [12, 8], plan)
    assert trained(tools, [12, 8], plan, disturb, near=True)[0] == expected
    assert disturb.hits


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_replica_that_dies_at_an_exchange_changes_nothing(tools, monkeypatch, number, when):
    """The others notice while they wait, and all meet at the driver from then on."""
    original, hits = meeting_loop.bring_near, []

    def bring_near(run, shared, gradient, at, *args):
        dies = run.shard.index == 0 and at == number and not hits
        if dies and when == "before":
            hits.append(at)
            raise tools.lost
        original(run, shared, gradient, at, *args)
        if dies:
            hits.append(at)
            raise tools.lost

    plan = tools.plan("synchronous", "batch")
    expected, _ = trained(tools, [12, 8], plan)
    monkeypatch.setattr(meeting_loop, "bring_near", bring_near)
    found, messages = trained(tools, [12, 8], plan, near=True)
    assert found == expected
    assert hits == [number]
    assert messages[1]["reduce"] > 3


def test_replicas_that_do_not_find_the_file_meet_at_the_driver(tools, monkeypatch, caplog):
    plan = tools.plan("synchronous", "batch")
    expected, _ = trained(tools, [12, 8], plan)
    find, answers = SharedGradients.find, iter([None])
    monkeypatch.setattr(SharedGradients, "find", lambda *args: next(answers, find(*args)))
    assert trained(tools, [12, 8], plan, near=True)[0] == expected
    assert "does not see the shared memory. Epoch 1 starts again on all workers." in caplog.text
    assert "came back" not in caplog.text


def test_jobs_that_end_before_the_fit_go_on_where_they_left(tools):
    """One job per validated epoch: no epoch starts again between them."""

    def train(stops, **more):
        plan = tools.plan("synchronous", "batch", epochs=3)
        with tools.world([12, 8], plan, **more) as world:
            found = world.train_in_jobs(stops)
            assert world.coordinator.rendezvous.generation == 0
            return found

    assert train([1, 2, 3], near=True) == train([3]) == train([2, 3], near=True)


def test_a_job_that_is_lost_in_an_epoch_starts_it_again_at_the_driver(tools, caplog):
    """Its tasks may still write to the file."""
    with tools.world([12, 8], tools.plan("synchronous", "batch"), near=True) as world:
        world.coordinator.begin_job(0)
        run = world.run(0)
        run.client.pull(np.empty(3, "f4"))
        world.coordinator.begin_job(1000)
        assert "The job was lost. Epoch 1 starts again on all workers." in caplog.text
        assert not world.coordinator.rendezvous.apart
        answer, _ = world.run(0, 1000).client.report(WaitingReport(0, found=True).to_json())
        assert answer == {"stop": False, "restart": True, "epoch": 0, "generation": 1}


def test_nobody_waits_for_ever(tools, monkeypatch):
    """The other one was lost. Shard 0 has no rows and no replica."""
    monkeypatch.setattr(shared_gradients, "ASK_SECONDS", 0.001)
    plan = tools.plan("synchronous", "batch", timeout=0.01, initial_epoch=1, epochs=2)
    with tools.world([0, 12, 8], plan, near=True) as world:
        run = world.run(1)
        world.run(2)
        world.coordinator.lost(2, 0, "killed")
        told = r"Shards \[2\] were lost and did not come back within 0\.01 s"
        with pytest.raises(ConnectionLostError, match=told):
            choose_loop(run)


def test_the_seconds_of_waiting_are_reported(tools):
    with tools.world([40, 4], tools.plan("synchronous", "batch"), near=True) as world:
        reports = world.train()
        for run in world.runs:
            assert run.waited > 0
        assert all(facts.waiting > 0 for report in reports for facts in report.facts.values())
