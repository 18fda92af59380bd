"""How an epoch is cut into pieces, and what a live replica does around them."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark.cluster.failures import NonFiniteLossError
from kspark.live import run as live_run
from kspark.live.exchanging import spans, train_exchanging
from kspark.live.run import LiveRun
from kspark.live.wire import Instructions
from kspark.live.wire.reports import EpochEnd
from kspark.replica.callbacks import ReplicaCallbacks
from kspark.shards import Usage
from kspark.worker.progress import Reporter
from kspark.worker.reading import examples_in
from kspark.worker.state import ShardState

sizes = st.integers(1, 60)
batch_sizes = st.integers(1, 9)
frequencies = st.one_of(st.just("epoch"), st.just("batch"), st.integers(1, 12))
window_rows = st.sampled_from([1, 5, 8, 17, 1000])


# -- spans ---------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(sizes, batch_sizes, frequencies, window_rows, st.booleans(), st.data())
def test_spans_hold_every_batch_from_a_position_on_once_and_in_order(
    tools, count, batch_size, frequency, rows, shuffle, data
):
    plan = tools.plan("asynchronous", frequency, batch_size=batch_size, shuffle=shuffle)
    with tools.world([count], plan, window_rows=rows) as world:
        run = world.run(0)
        position = data.draw(st.integers(0, run.exchanges))
        batches, exchanged, examples = [], [], 0
        for window, start, stops, end in spans(run, 0, position):
            assert 0 <= start < end == -(-window.num_examples // batch_size)
            assert stops == sorted(set(stops)) and all(start < stop <= end for stop in stops)
            batches += range(start + window.first_batch, end + window.first_batch)
            exchanged += [stop + window.first_batch for stop in stops]
            examples += examples_in(window, batch_size, start, end)
        skipped = position * run.local
        ends = [min(n * run.local, run.batches) for n in range(position + 1, run.exchanges + 1)]
        assert batches == list(range(skipped, run.batches))
        assert exchanged == ends
        assert examples == count - min(skipped * batch_size, count)


def test_spans_by_hand(tools):
    """Seven batches of 4 in windows of 3 batches, exchanged every 2 of them."""
    with tools.world([26], tools.plan("asynchronous", 2), window_rows=12) as world:
        found = [(w.first_batch, *rest) for w, *rest in spans(world.run(0), 0, 1)]
    assert found == [(0, 2, [], 3), (3, 0, [1, 3], 3), (6, 0, [1], 1)]


@settings(max_examples=50)
@given(sizes, batch_sizes, frequencies, window_rows, st.data())
def test_every_row_is_trained_once_from_what_base_holds_by_then(
    tools, count, batch_size, frequency, rows, data
):
    plan = tools.plan("asynchronous", frequency, batch_size=batch_size, shuffle=False)
    with tools.world([count], plan, window_rows=rows) as world:
        run = world.run(0)
        position = data.draw(st.integers(0, run.exchanges))
        base, numbers = np.zeros(3, "f4"), []
        size = run.local * batch_size

        def exchange(number, examples, change):
            ids = world.ids[0][number * size : (number + 1) * size]
            numbers.append(number)
            assert examples == len(ids)
            assert change.tolist() == [len(ids), ids.sum(), -(-len(ids) // batch_size)]
            base[:] += 1000  # as if others had pushed

        train_exchanging(run, 0, position, base, exchange)
        assert numbers == list(range(position, run.exchanges))
        starts = [("set_vector", [1000.0 * n] * 3) for n in range(len(numbers) + 1)]
        assert run.replica.calls == starts
        expected = np.zeros(tools.num_ids)
        expected[world.ids[0][position * size :]] = 1
        np.testing.assert_array_equal(run.replica.seen, expected)


def test_every_epoch_is_shuffled_anew_and_the_same_way_in_a_retry(tools):
    def order(world, epoch):
        windows = world.run(0).windows(epoch)
        return np.concatenate([w.x[0][w.order] for w in windows]).tolist()

    with tools.world([30], tools.plan(shuffle=True), window_rows=8) as world:
        first, second = order(world, 0), order(world, 1)
        assert order(world, 0) == first != second
        assert sorted(first) == sorted(second) == list(range(30)) != first


def test_only_the_training_rows_are_read(tools):
    with tools.world([30], tools.plan(shuffle=False)) as world:
        world.counts[0] = 20
        assert np.concatenate([w.x[0] for w in world.run(0).windows(0)]).tolist() == [*range(20)]


def test_class_weights_become_sample_weights(tools, monkeypatch):
    seen = []

    class Weighted(tools.small_windows):
        def windows(self, batch_size, **more):
            for window in super().windows(batch_size, **more):
                window.with_class_weight = lambda weights: seen.append(weights) or "weighted"
                yield window

    with tools.world([3], tools.plan(class_weight={1: 2.0})) as world:
        run = world.run(0)
        run.shard = Weighted(world.handles[0])
        assert list(run.windows(0)) == ["weighted"]
    assert seen == [{1: 2.0}]


@given(
    st.integers(1, 60), st.integers(1, 4), st.integers(1, 7), st.sampled_from([8, 16]), st.data()
)
def test_a_replica_that_reports_exchanges_the_same(tools, count, size, local, rows, data):
    """It trains its windows in pieces, but these change no exchange and no weight."""
    found = []
    for reports in (False, True):
        plan = tools.plan("asynchronous", local, batch_size=size)
        with tools.world([count], plan, window_rows=rows) as world:
            run, exchanged = world.run(0), []
            if reports:
                run.reporter = Reporter(lambda meta, arrays: None)
                run.reporter._piece = data.draw(st.integers(1, 5))
            base = np.zeros(3, "f4")

            def exchange(number, examples, delta, exchanged=exchanged, base=base):
                exchanged.append((number, examples, delta.tolist()))
                base += delta

            train_exchanging(run, 0, 0, base, exchange)
            found.append((exchanged, base.tolist(), run.replica.seen.tolist(), run.replica.steps))
    assert found[0] == found[1]


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 7), st.integers(0, 3))
def test_a_replica_with_callbacks_exchanges_the_same(tools, count, size, local, each):
    """Its hooks run before the exchange that is due after their batch, in which it is the same."""
    found = []
    for has_callbacks in (False, True):
        plan = tools.plan("asynchronous", local, batch_size=size)
        with tools.world([count], plan, window_rows=8) as world:
            run, exchanged, told = world.run(0), [], []
            callbacks = ReplicaCallbacks(b"" if has_callbacks else None, {"steps": run.batches})
            callbacks.batches = each
            callbacks.end_batches = lambda last, run=run, told=told: told.append(last)
            callbacks.end_epoch = lambda told=told: told.append("end")
            run.reporter = Reporter(callbacks=callbacks)
            base = np.zeros(3, "f4")

            def exchange(number, examples, delta, exchanged=exchanged, base=base, told=told):
                exchanged.append((number, examples, delta.tolist()))
                base += delta
                told.append(number)

            train_exchanging(run, 0, 0, base, exchange)
            found.append((exchanged, base.tolist(), run.replica.seen.tolist(), run.replica.steps))
    assert found[0] == found[1]
    assert told[-2:] == ["end", run.exchanges - 1]


# -- around an epoch -------------------------------------------------------------------------------


@pytest.fixture
def run(tools):
    with tools.world([10, 10], tools.plan("asynchronous", 2)) as world:
        yield world.run(1)


def test_an_epoch_begins_with_the_shards_state_and_fresh_metrics(run):
    run.replica.steps, run.replica.seen[3] = 99, 5
    run.begin(0)
    assert (run.replica.steps, run.replica.seeds) == (0, (1, 1))  # seed and shard
    assert not run.replica.seen.any()
    run.replica.steps = 4
    run.begin(1)  # the replica is in the shard's state already
    assert run.replica.steps == 4
    plan = run.task.fit.plan
    assert run.replica.backend_seeds == [plan.backend_seed(1, epoch) for epoch in (0, 1)]


@pytest.mark.parametrize(
    ("word", "task", "expected"),
    [(None, None, 0.5), (None, 0.25, 0.25), (0.125, 0.25, 0.125), (0.125, None, 0.125)],
)
def test_the_drivers_learning_rate_counts_before_the_tasks(run, word, task, expected):
    run.task = type(run.task)(**{**vars(run.task), "learning_rate": task})
    if word is not None:
        run.instructions = Instructions(learning_rate=word)
    run.begin(0)
    assert run.replica.learning_rate == expected


def test_metrics_are_reported_with_the_figures_of_this_epoch_alone(run, monkeypatch):
    monkeypatch.setattr(live_run, "time", SimpleNamespace(perf_counter=lambda: 50.0))
    out = np.empty(3, "f4")
    run.state_kept = False
    for epoch, pulls in ((0, 2), (1, 1), (2, 1)):
        for _ in range(pulls):
            run.client.pull(out)
        run.report_metrics(epoch, 48.0)
    first, *others = (m for m in run.client.reports if m["kind"] == "metrics")
    assert [m["epoch"] for m in (first, *others)] == [0, 1, 2]
    place = {"host": socket.gethostname(), "pid": os.getpid()}
    counts = {"batches": 3, "num_examples": 10}
    counted = {**place, **counts, "waiting": 2, "bytes_sent": 20, "bytes_received": 200}
    assert first["facts"] == {**counted, "seconds": 2.0, "state_kept": False}
    # The report of the epoch before counts here.
    told = {**counted, "seconds": 0.0, "state_kept": True}
    assert [m["facts"] for m in others] == [told] * 2


def test_the_rest_is_what_follows_the_last_report(run, monkeypatch):
    monkeypatch.setattr(live_run, "time", SimpleNamespace(perf_counter=lambda: 50.0))
    counts = {"waiting": 3, "bytes_sent": 30, "bytes_received": 300}
    out = np.empty(3, "f4")
    assert run.rest() == Usage()  # it has reported nothing
    run.reported = 49.0
    for _ in range(3):
        run.client.pull(out)
    assert run.rest() == Usage(seconds=1.0, **counts)


def test_a_loss_that_is_not_finite_is_not_reported_as_metrics(run):
    run.replica.finite = False
    with pytest.raises(NonFiniteLossError, match="in epoch 4"):
        run.report_metrics(3, 0.0)
    assert run.client.reports == []


def test_the_end_of_an_epoch_is_said_again_until_the_driver_is_through(run, monkeypatch):
    answers = iter([{"hold": True}, {"hold": True}, {"stop": True, "learning_rate": 0.1}])
    said = []

    def report(meta, arrays=()):
        said.append(meta)
        return next(answers), []

    monkeypatch.setattr(run.client, "report", report)
    run.replica.steps = 8
    assert run.end(EpochEnd(0, generation=3)) == Instructions(stop=True, learning_rate=0.1)
    assert said == [{"kind": "epoch", "epoch": 0, "generation": 3}] * 3
    assert run.stopped
    assert run.instructions.learning_rate == 0.1
    assert run.state.load(0)[0][0] == 8  # saved before it was said


def test_state_is_kept_also_if_an_earlier_attempt_had_trained_it(run):
    run.replica.steps = 12
    run.state.save(run.replica, 1)
    ShardState("fit", run.shard).depart()
    run.replica.steps = 99  # the process had another shard since
    assert run.kept_state()[0][0] == 12
    run.replica.steps = 13
    assert run.kept_state()[0][0] == 13


@pytest.mark.parametrize(("epoch", "kept"), [(2, True), (3, True), (4, False)])
def test_a_state_is_at_most_one_epoch_older_than_the_last(run, epoch, kept):
    """A process may have died before it saved one. Older ones stayed when the shard left."""
    run.replica.steps = 12
    run.state.save(run.replica, 1)
    run.state.depart()
    run.begin(epoch)
    assert (run.state_kept, run.replica.steps) == (kept, 12 if kept else 0)


def test_stopped_by_the_drivers_word(run):
    assert not run.stopped
    run.instructions = Instructions(stop=True)
    assert run.stopped


def test_cuts_of_a_shard(run):
    assert isinstance(run, LiveRun)
    assert (run.batches, run.local, run.exchanges) == (3, 2, 2)


def test_a_retry_in_the_same_process_does_not_go_on_from_the_middle_of_an_epoch(tools):
    with tools.world([10, 10], tools.plan("asynchronous", 2, epochs=3)) as world:
        run = world.run(1)
        run.begin(0)
        run.replica.steps = 4
        run.state.save(run.replica, 0)
        run.begin(1)
        run.replica.steps = 6  # and the connection is lost
        again = world.run(1, attempt=1)
        again.replica = run.replica
        again.begin(1)
        assert again.replica.steps == 4
