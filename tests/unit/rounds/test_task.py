"""Rounds: spool, train an epoch, fetch state, clean up, all as Spark's tasks would call it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark.cluster.failures import NonFiniteLossError
from kspark.errors import ConnectionLostError, Failure
from kspark.rounds.task import RoundTask, train_epoch, train_round
from kspark.shards import Chunk, Shard, ShardHandle
from kspark.worker.kept_files import write_files
from kspark.worker.progress import Reporter
from kspark.worker.removal import clean_host, clean_up
from kspark.worker.spooling import spool_shard
from kspark.worker.state import ShardState, Tries, fetch_state, replica_for
from kspark.worker.tasks import STATELESS, FitTask, MissingShard, ShardResult

ZEROS = np.zeros(3, "f4")


@pytest.fixture(autouse=True)
def local_dirs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return tmp_path


def spooled(run_id, index, ids):
    (document,) = spool_shard(
        run_id, False, index, iter([Chunk([np.asarray(ids)])] if len(ids) else [])
    )
    return document


def task_of(tools, num_train, epoch=0, *, frequency="epoch", rate=None, state=False, **plan):
    made = tools.plan("synchronous", frequency, **plan)
    return RoundTask(FitTask("fit", made, num_train, 2), epoch, rate, state)


def train(task, documents, vector=ZEROS, spec=None, tools=None):
    return list(train_round(task, spec or tools.spec(), vector, 0, iter(documents)))


# -- spooling ------------------------------------------------------------------------------------


def test_a_partition_becomes_one_handle(local_dirs):
    chunks = [Chunk([np.arange(3)]), Chunk([np.arange(3, 5)])]
    (document,) = spool_shard("fit", False, 7, iter(chunks))
    handle = ShardHandle.from_json(document)
    assert (handle.index, handle.num_examples) == (7, 5)
    assert handle.path.startswith(str(local_dirs))
    assert Shard.open(handle).read().x[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", [ValueError, TypeError])
def test_rows_that_are_not_usable_are_told_as_a_value(kind):
    def chunks():
        yield Chunk([np.arange(3)])
        raise kind("`x` must be something else")

    (document,) = spool_shard("fit", False, 7, chunks())
    failure = json.loads(document)["failure"]
    assert (failure["shard"], failure["kind"]) == (7, kind.__name__)
    assert failure["message"] == "`x` must be something else"


def test_the_rest_of_unusable_rows_is_read_so_that_spark_keeps_the_process():
    chunks = iter([Chunk([np.zeros((1, 2))]), Chunk([np.zeros((1, 3))]), Chunk([np.zeros((1, 2))])])
    (document,) = spool_shard("fit", False, 0, chunks)
    assert document.startswith(b'{"failure"')
    assert next(chunks, None) is None


def test_what_is_not_the_rows_fault_is_spark_s_to_retry():
    def chunks():
        yield Chunk([np.arange(3)])
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        list(spool_shard("fit", False, 0, chunks()))


# -- training a round ------------------------------------------------------------------------------


def test_a_round_brings_what_changed(tools):
    documents = [spooled("fit", 0, [1, 2, 3, 4, 5]), spooled("fit", 1, []), spooled("fit", 2, [9])]
    vector = np.array([10, 20, 30], "f4")
    first, empty, third = train(task_of(tools, {0: 5, 1: 0, 2: 1}), documents, vector, tools=tools)
    assert (first.shard, first.num_examples, first.delta.tolist()) == (0, 5, [5, 15, 2])
    assert np.flatnonzero(first.metrics[0]).tolist() == [1, 2, 3, 4, 5]
    assert (first.facts.batches, first.state) == (2, None)
    counts = [getattr(first.facts, name) for name in ("bytes_sent", "bytes_received", "waiting")]
    assert counts == [12, 12, 0]  # three numbers there, three back
    assert empty == ShardResult(1, 0)
    # The same process trains the next shard from the same weights, with fresh metrics.
    assert third.delta.tolist() == [1, 9, 1]
    assert np.flatnonzero(third.metrics[0]).tolist() == [9]
    assert vector.tolist() == [10, 20, 30]


def test_rows_that_validate_do_not_train(tools):
    document = spooled("fit", 0, [1, 2, 3, 4, 5])
    (result,) = train(task_of(tools, {0: 3}), [document], tools=tools)
    assert (result.num_examples, result.delta[1]) == (3, 6)


def test_shards_that_are_not_mentioned_do_not_train(tools):
    assert train(task_of(tools, {}), [spooled("fit", 0, [1])], tools=tools) == [ShardResult(0, 0)]


@settings(max_examples=30)
@given(st.integers(1, 80), st.integers(1, 9), st.sampled_from([3, 16, 1000]), st.booleans())
def test_every_row_trains_once_in_full_batches_but_the_last(tools, count, size, rows, shuffle):
    plan = tools.plan("synchronous", "epoch", batch_size=size, shuffle=shuffle)
    with tools.world([count], plan, window_rows=rows) as world:
        replica = tools.replica()
        replica.seen[5] = 9
        for epoch in (0, 1):
            train_epoch(replica, world.shard(0), world.fit_task, epoch)
            np.testing.assert_array_equal(replica.seen, world.all_ids)
        assert replica.steps == 2 * -(-count // size)


def test_reports_know_how_many_rows_an_epoch_has_also_after_a_checkpoint(tools):
    """Passes over the rows are counted from the epoch in which the first fit began."""
    totals = []

    class Totals(Reporter):
        def begin(self, epoch, total):
            totals.append(total)
            super().begin(epoch, total)

    plan = tools.plan("synchronous", "epoch", epochs=4, initial_epoch=1, steps_per_epoch=2)
    with tools.world([10], replace(plan, first_epoch=0)) as world:
        for epoch in (1, 2):
            train_epoch(tools.replica(), world.shard(0), world.fit_task, epoch, Totals())
    assert totals == [2 + 4, 4 + 2]


def test_each_epoch_has_its_own_order(tools, monkeypatch):
    orders = []
    monkeypatch.setattr(
        tools.replica, "train", lambda self, window, *_: orders.append(window.order.tolist())
    )
    document = spooled("fit", 0, range(20))
    for epoch in (0, 1, 0):
        train(task_of(tools, {0: 20}, epoch), [document], tools=tools)
    assert orders[0] == orders[2] != orders[1]


def test_the_backend_draws_the_same_random_numbers_in_each_try_of_an_epoch(tools):
    documents = [spooled("fit", 0, range(4)), spooled("fit", 1, range(4, 8))]
    for epoch in (0, 1, 1):
        train(task_of(tools, {0: 4, 1: 4}, epoch), documents, tools=tools)
    plan = tools.plan("synchronous", "epoch")
    expected = [plan.backend_seed(shard, epoch) for epoch in (0, 1, 1) for shard in (0, 1)]
    assert replica_for(tools.spec(), "fit", 2).backend_seeds == expected
    assert len(set(expected)) == 4


def test_class_weights_become_sample_weights(tools, monkeypatch):
    seen = []

    def note(self, window, *_):
        seen.append([w.tolist() for w in window.sample_weight])

    monkeypatch.setattr(tools.replica, "train", note)
    chunk = Chunk([np.arange(3)], [np.array([0, 1, 1])])
    (document,) = spool_shard("fit", False, 0, iter([chunk]))
    for weights in (None, {1: 0.5}):
        train(task_of(tools, {0: 3}, class_weight=weights), [document], tools=tools)
    assert seen == [[], [[1.0, 0.5, 0.5]]]


def test_the_optimizers_state_goes_from_round_to_round_with_the_shard(tools):
    """Not with the process: both shards train in this one."""
    documents = [spooled("fit", 0, range(12)), spooled("fit", 1, range(4))]
    for epoch in (0, 1):
        task = task_of(tools, {0: 12, 1: 4}, epoch, state=epoch == 1)
        results = train(task, documents, tools=tools)
    assert [r.state[0][0] for r in results] == [2 * 3, 2 * 1]
    assert [r.state[1][0].tolist() for r in results] == [[1, 0], [1, 1]]  # seed and shard


def test_a_round_that_is_run_again_begins_with_the_same_state(tools):
    document = spooled("fit", 0, range(12))
    steps = []
    for epoch in (0, 1, 1):
        (result,) = train(task_of(tools, {0: 12}, epoch, state=True), [document], tools=tools)
        steps.append(int(result.state[0][0]))
    assert steps == [3, 6, 6]


def test_a_shard_that_was_late_goes_on_from_the_last_epoch_it_has_trained(tools):
    """Also if its task is run again."""
    document = spooled("fit", 0, range(12))
    steps = []
    for epoch, trained in ((0, {}), (3, {0: 0}), (3, {0: 0}), (5, {0: 3}), (5, {0: 3})):
        task = task_of(tools, {0: 12}, epoch, state=True, straggler_timeout=1.0)
        task = replace(task, fit=replace(task.fit, trained=trained))
        (result,) = train(task, [document], tools=tools)
        steps.append(int(result.state[0][0]))
        assert result.facts.state_kept
    assert steps == [3, 6, 6, 9, 9]


@pytest.mark.parametrize("late", [False, True])
def test_a_state_from_before_the_shard_was_elsewhere_is_not_restored(tools, late):
    document = spooled("fit", 0, range(12))
    more = {"straggler_timeout": 1.0} if late else {}
    steps, kept = [], []
    for epoch, trained in ((0, {}), (4, {0: 3})):  # It has trained epoch 3 on another executor.
        task = task_of(tools, {0: 12}, epoch, state=True, **more)
        task = replace(task, fit=replace(task.fit, trained=trained))
        (result,) = train(task, [document], tools=tools)
        steps.append(int(result.state[0][0]))
        kept.append(result.facts.state_kept)
    assert (steps, kept) == ([3, 3], [True, False])


@pytest.mark.parametrize(("rate", "expected"), [(None, 0.5), (0.125, 0.125)])
def test_the_drivers_learning_rate(tools, rate, expected):
    train(task_of(tools, {0: 1}, rate=rate), [spooled("fit", 0, [1])], tools=tools)
    assert replica_for(tools.spec(), "fit", 2).learning_rate == expected


def test_the_replica_gets_the_threads_of_the_plan(tools):
    spec = tools.spec()
    train(task_of(tools, {0: 1}), [spooled("fit", 0, [1])], spec=spec)
    assert spec.built == [2]


# -- when something is wrong ---------------------------------------------------------------------


def failing(tools, monkeypatch, error):
    def fail(self, *_):
        raise error

    monkeypatch.setattr(tools.replica, "train", fail)


def test_a_models_exception_comes_back_as_a_value_and_the_next_shard_goes_on(tools, monkeypatch):
    documents = [spooled("fit", 0, [1]), spooled("fit", 1, [])]
    failing(tools, monkeypatch, ZeroDivisionError("layer"))
    failure, empty = train(task_of(tools, {0: 1}), documents, tools=tools)
    assert isinstance(failure, Failure)
    assert (failure.shard, failure.kind, failure.message) == (0, "ZeroDivisionError", "layer")
    assert empty == ShardResult(1, 0)


def test_a_lost_connection_fails_the_task_and_is_not_held_against_it(tools, monkeypatch):
    document = spooled("fit", 0, [1])
    failing(tools, monkeypatch, ConnectionLostError("gone"))
    for _ in range(9):
        with pytest.raises(ConnectionLostError):
            train(task_of(tools, {0: 1}, max_failures=0), [document], tools=tools)


def test_a_process_that_keeps_dying_is_given_up(tools, monkeypatch):
    document = spooled("fit", 0, [1])
    failing(tools, monkeypatch, SystemExit(1))
    task = task_of(tools, {0: 1}, epoch=4, max_failures=1)
    for _ in range(2):
        with pytest.raises(SystemExit):
            train(task, [document], tools=tools)
    (failure,) = train(task, [document], tools=tools)
    assert (failure.kind, failure.shard) == ("WorkerLost", 0)
    assert "ended 2 times" in failure.message


def test_a_process_that_dies_in_a_long_job_is_not_held_against_the_shard(tools, monkeypatch):
    """The driver may have ended it, because another one was lost."""
    document = spooled("fit", 0, [1])
    failing(tools, monkeypatch, SystemExit(1))
    task = replace(task_of(tools, {0: 1}, max_failures=0), counts_deaths=False)
    for _ in range(3):
        with pytest.raises(SystemExit):
            train(task, [document], tools=tools)


def test_a_round_that_succeeds_forgives(tools):
    document = spooled("fit", 0, [1])
    state = ShardState.of("fit", ShardHandle.from_json(document))
    Tries(state, 0, 1).__enter__()
    (result,) = train(task_of(tools, {0: 1}, max_failures=1), [document], tools=tools)
    assert isinstance(result, ShardResult)
    assert Tries(state, 0, 1).count == 0


def test_files_that_are_gone_are_told(tools):
    document = spooled("fit", 0, [1])
    Shard.remove(ShardHandle.from_json(document))
    (result,) = train(task_of(tools, {0: 1}), [document], tools=tools)
    assert isinstance(result, MissingShard)


def test_a_shard_that_came_back_with_fewer_rows_is_told(tools):
    (failure,) = train(task_of(tools, {0: 3}), [spooled("fit", 0, [1, 2])], tools=tools)
    assert failure.kind == "ValueError"
    assert "was read again" in failure.message


@pytest.mark.parametrize(("rule", "kind"), [("raise", Failure), ("ignore", ShardResult)])
def test_a_loss_that_is_not_finite(tools, monkeypatch, rule, kind):
    monkeypatch.setattr(tools.replica, "loss_is_finite", lambda self: False)
    task = task_of(tools, {0: 1}, epoch=6, on_nonfinite=rule)
    (result,) = train(task, [spooled("fit", 0, [1])], tools=tools)
    assert isinstance(result, kind)
    if rule == "raise":
        assert (result.kind, result.message) == (
            "NonFiniteLoss",
            "The loss is NaN or infinite in epoch 7.",
        )


def test_a_loss_that_is_not_finite_is_noticed_window_by_window(tools, monkeypatch):
    trained = []
    monkeypatch.setattr(tools.replica, "train", lambda self, *_: trained.append(1))
    monkeypatch.setattr(tools.replica, "loss_is_finite", lambda self: len(trained) < 2)
    plan = tools.plan("synchronous", "epoch")
    with tools.world([40], plan, window_rows=4) as world, pytest.raises(NonFiniteLossError):
        train_epoch(tools.replica(), world.shard(0), world.fit_task, 0)
    assert len(trained) == 2


# -- afterwards ----------------------------------------------------------------------------------


def test_states_are_fetched_from_where_they_are(tools):
    documents = [spooled("fit", i, range(4 * i + 4)) for i in range(3)]
    task = task_of(tools, {0: 4, 2: 12})
    train(task, documents, tools=tools)
    found = list(fetch_state("fit", 0, 0, iter(documents)))
    assert [(r.shard, int(r.state[0][0])) for r in found] == [(0, 1), (2, 3)]
    assert list(fetch_state("fit", 1, 0, iter(documents))) == []


def test_a_state_on_another_host_is_told(tools):
    """There may be one; Spark has to run the task there."""
    documents = [spooled("fit", i, range(4 * i + 4)) for i in range(2)]
    train(task_of(tools, {0: 4}), documents[:1], tools=tools)
    away = [replace(ShardHandle.from_json(d), mark="another").to_json() for d in documents]
    found, missing = fetch_state("fit", 0, 0, iter(away))
    assert (found.shard, int(found.state[0][0])) == (0, 1)  # the files are what counts
    assert missing == MissingShard(1, platform.node(), platform.node())
    assert missing.strayed


def test_files_travel_with_the_result_and_are_asked_for_where_they_are_missing(tools):
    """As on an executor that has taken the place of another one."""
    document = spooled("fit", 0, range(4))
    task = task_of(tools, {0: 4})
    task = replace(task, fit=replace(task.fit, travels=True))
    (first,) = train(task, [document], tools=tools)
    assert set(first.files) == {"state"}
    state = ShardState.of("fit", ShardHandle.from_json(document))
    shutil.rmtree(state.folder)
    later = replace(task, epoch=1, fit=replace(task.fit, kept={0: 0}))
    (missing,) = train(later, [document], tools=tools)
    assert missing == MissingShard(0, platform.node(), platform.node(), STATELESS)
    (written,) = write_files("fit", 0, {0: first.files}, 0, [document])
    (second,) = train(later, [document], tools=tools)
    assert second.facts.state_kept
    assert second.num_examples == 4


def test_nothing_is_left_behind(tools, local_dirs):
    """Neither the handles' own files and state, nor shards that were written again."""
    document = spooled("fit", 0, [1])
    spooled("fit", 0, [1])  # by an attempt that Spark gave up
    train(task_of(tools, {0: 1}), [document], tools=tools)
    spec = tools.spec()
    kept = replica_for(spec, "fit", 1)
    other = spooled("fit-validation", 0, [1])
    assert list(clean_up("fit", 0, iter([document]))) == [0]
    assert os.listdir(local_dirs) == ["kspark-fit-validation"]
    assert Shard.open(ShardHandle.from_json(other))
    assert replica_for(spec, "fit", 1) is not kept
    assert list(clean_up("fit-validation", 0, iter([other]))) == [0]
    assert os.listdir(local_dirs) == []


def test_a_host_is_cleaned_of_what_no_handle_names(tools, local_dirs):
    spooled("fit", 0, [1])
    spooled("other", 0, [1])
    spec, rows = tools.spec(), iter([0, 1])
    kept = replica_for(spec, "fit", 1)
    assert list(clean_host("fit", 0, rows)) == []
    assert list(rows) == []  # or Spark would throw the process away
    assert os.listdir(local_dirs) == ["kspark-other"]
    assert replica_for(spec, "fit", 1) is not kept


def test_shards_elsewhere_are_removed_too(tmp_path, tools):
    """Spark's directories may differ from process to process; the handle knows the path."""
    handle = ShardHandle.from_json(spooled("fit", 0, [1]))
    elsewhere = tmp_path / "elsewhere"
    os.rename(handle.path, elsewhere)
    moved = replace(handle, path=str(elsewhere))
    assert list(clean_up("fit", 0, iter([moved.to_json()]))) == [0]
    assert not elsewhere.exists()
