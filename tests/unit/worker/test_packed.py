"""Replicas that compress: what they send, what they keep, and what a lost one forgets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kspark.aggregator import Delta
from kspark.compression import TopK
from kspark.live.push_loop import run_pushes
from kspark.live.wire import Start
from kspark.rounds.driver import deltas
from kspark.rounds.task import RoundTask, train_round
from kspark.shards import Chunk
from kspark.worker.spooling import spool_shard
from kspark.worker.tasks import FitTask

HALF = TopK(0.5)  # of the two trainable weights of these tests, one


def whole(world, epochs):
    """Weights after so many epochs, if nothing is lost: rows and sum of ids."""
    ids = np.concatenate(list(world.ids.values()))
    return np.array([epochs * len(ids), epochs * ids.sum()])


def residuals(world):
    return sum(run.packer.residual for run in world.runs)


# -- asynchronous ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frequency", ["epoch", "batch", 2])
def test_what_arrives_and_what_is_left_is_what_was_learned(tools, frequency):
    plan = tools.plan("asynchronous", frequency, epochs=3, compression=HALF)
    with tools.world([24, 9], plan, rule="downpour") as world:
        world.train()
        got = world.aggregator.weights
        assert (got[:2] + residuals(world)).tolist() == whole(world, 3).tolist()
        assert residuals(world).any()
        sent = [payload for run in world.runs for payload in run.client.sent]
        assert {(payload.dtype.name, payload.size) for payload in sent} == {("uint8", 4 + 8)}


def test_without_compression_the_delta_itself_is_sent(tools):
    with tools.world([8], tools.plan("asynchronous", "batch", epochs=1)) as world:
        world.train()
        (run,) = world.runs
        assert run.packer.residual is None
        assert {payload.dtype.name for payload in run.client.sent} == {"float32"}
        assert list(run.state.folder.glob("*.residual")) == []


def test_a_residual_stays_with_the_shard_from_job_to_job(tools):
    """One job per epoch, as with a validation after each: as good as one job for both."""
    plan = tools.plan("asynchronous", 2, compression=HALF)
    with tools.world([24], plan, rule="downpour") as world:
        first = world.run(0, attempt=0, stop=1)
        run_pushes(first)
        kept = first.packer.residual.copy()
        world.coordinator.close_epoch(0, stop=False, learning_rate=None)
        second = world.run(0, attempt=1)
        second.resume(1)
        assert second.packer.residual.tolist() == kept.tolist() != [0, 0]


@pytest.mark.parametrize(("position", "kept"), [(0, [5, 7]), (2, [0, 0])])
def test_what_was_sent_already_is_not_sent_again(tools, position, kept):
    """In the middle of an epoch a part of the residual has been sent: then it is forgotten."""
    plan = tools.plan("asynchronous", 2, compression=HALF)
    with tools.world([24], plan, rule="downpour") as world:
        run = world.run(0)
        run.state.save_residual(np.array([5, 7], "f4"), 0)
        run.packer.residual[:] = 99
        run.welcome = replace(run.welcome, start=Start(0, position=position))
        run.resume(1)
        assert run.packer.residual.tolist() == kept


@pytest.mark.parametrize("number", range(1, 7))
def test_a_lost_replica_loses_no_more_than_its_residual(tools, number):
    """All numbers grow, so what is missing can only be what was left over."""
    plan = tools.plan("asynchronous", 2, compression=HALF)
    with tools.world([24], plan, rule="downpour") as world:
        world.train({0: tools.at("push", number)})
        arrived = world.aggregator.weights[:2] + residuals(world)
        assert (arrived <= whole(world, 2)).all()
        assert arrived.sum() >= whole(world, 2).sum() / 2


# -- synchronous, deltas ---------------------------------------------------------------------------


def test_meetings_merge_what_arrives(tools):
    plan = tools.plan("synchronous", 2, epochs=3, compression=HALF)
    with tools.world([12, 12], plan) as world:
        world.train()
        means = [(run.packer.residual + 0) / 2 for run in world.runs]
        ids = np.concatenate(list(world.ids.values()))
        expected = np.array([3 * len(ids) / 2, 3 * ids.sum() / 2])
        np.testing.assert_allclose(world.aggregator.weights[:2] + sum(means), expected)


@pytest.mark.parametrize("frequency", ["batch", 2])
def test_an_epoch_that_starts_again_leaves_no_trace(tools, frequency):
    """Weights and residuals are those of a fit that nothing happened to, to the bit."""
    results = []
    for disturb in ({}, {1: tools.at("reduce", 5)}):
        plan = tools.plan("synchronous", frequency, epochs=3, compression=HALF)
        with tools.world([12, 12], plan) as world:
            world.train(dict(disturb))
            assert all(d.hits for d in disturb.values())
            left = [run.packer.residual.tobytes() for run in world.runs]
            results.append([world.aggregator.weights.tobytes(), *left])
    assert results[0] == results[1]


# -- synchronous, gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["int8", "float16", HALF])
def test_replicas_that_merge_gradients_stay_alike(tools, codec):
    plan = tools.plan("synchronous", "batch", epochs=3, compression=codec)
    with tools.world([12, 9, 20], plan) as world:
        world.train()
        weights = {run.replica.vector[:2].tobytes() for run in world.runs}
        assert len(weights) == 1
        packing = plan.packing(tools.weights)
        for run in world.runs:
            sent = [payload.size for payload in run.client.sent if payload.dtype == "u1"]
            assert set(sent) == {packing.nbytes}
            assert [v.size for v in run.client.sent if v.dtype != "u1"] == [3] * 3


def test_merged_gradients_add_up(tools):
    """Steps are -0.5 times the mean gradient: what is missing is in the three residuals."""
    plan = tools.plan("synchronous", "batch", epochs=2, shuffle=False, compression=HALF)
    exact = tools.plan("synchronous", "batch", epochs=2, shuffle=False)
    with tools.world([8, 8], exact) as world:
        world.train()
        expected = world.aggregator.weights[:2].copy()
    with tools.world([8, 8], plan) as world:
        world.train()
        left = residuals(world) / 2 + world.coordinator._meetings._rendezvous._replies.residual
        got = world.aggregator.weights[:2] - 0.5 * left
    np.testing.assert_allclose(got, expected, rtol=1e-6)


# -- rounds ----------------------------------------------------------------------------------------


@pytest.fixture
def shard(tmp_path, monkeypatch):
    """The handle of a shard of the rows 1 to 5, whose delta is (5, 15) at batch size 4."""
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    (document,) = spool_shard("fit", 0, iter([Chunk([np.arange(1, 6)])]))
    return document


def round_of(tools, shard, epoch, **plan):
    made = tools.plan("synchronous", "epoch", epochs=9, **plan)
    task = RoundTask(FitTask("fit", made, {0: 5}, 1), epoch, None, False)
    (result,) = train_round(task, tools.spec(), np.zeros(3, "f4"), 0, iter([shard]))
    return result


def driver(tools, **plan):
    class Job:
        pass

    Job.plan, Job.spec = tools.plan("synchronous", "epoch", **plan), tools.spec()
    return Job


def test_rounds_send_what_the_round_before_left_over(tools, shard):
    job = driver(tools, compression=HALF)
    got = []
    for epoch in range(3):
        result = round_of(tools, shard, epoch, compression=HALF)
        assert (result.delta.dtype, result.delta.nbytes) == (np.uint8, 4 + 8)
        assert (result.facts.bytes_sent, result.facts.bytes_received) == (12, 12)
        (delta,) = deltas(job, [result])
        assert (delta.shard, delta.num_examples) == (0, 5)
        got.append(delta.vector.tolist())
    # (5, 15) each time, of which the larger one is sent; 2 batches are the state. In the third
    # round 5 has become 15 too, and of equals the first one is sent.
    assert got == [[0, 15, 2], [0, 15, 2], [15, 0, 2]]
    (delta,) = deltas(job, [round_of(tools, shard, 3, compression=HALF)])
    assert delta.vector.tolist() == [0, 30, 2]


def test_a_round_that_is_tried_again_sends_the_same_bytes(tools, shard):
    round_of(tools, shard, 0, compression=HALF)
    first = round_of(tools, shard, 1, compression=HALF)
    again = round_of(tools, shard, 1, compression=HALF)
    assert first.delta.tobytes() == again.delta.tobytes()


def test_a_round_without_compression_brings_the_delta(tools, shard):
    result = round_of(tools, shard, 0)
    assert result.delta.tolist() == [5, 15, 2]
    assert (result.facts.bytes_sent, result.facts.bytes_received) == (12, 12)
    (delta,) = deltas(driver(tools), [result])
    assert isinstance(delta, Delta)
    assert delta.vector is result.delta


def test_old_residuals_are_removed(tools, shard, tmp_path):
    for epoch in range(4):
        round_of(tools, shard, epoch, compression=HALF)
    names = sorted(path.name for path in tmp_path.rglob("*.residual"))
    assert names == ["2.residual", "3.residual"]
    assert list(tmp_path.rglob(".residual*")) == []
