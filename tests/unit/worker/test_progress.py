"""Windows are trained piece by piece, so that a replica can report within them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.cluster.activity import OTHER, TRAINING, current
from kspark.live.coordinator.marks import Moment
from kspark.live.coordinator.running import Running
from kspark.live.wire.reports import ProgressReport, read_report
from kspark.worker import progress
from kspark.worker.progress import MAX_METRIC_BYTES, REPORT_SECONDS, Reporter
from kspark.worker.tasks import FitTask

METRICS = [np.float32(3.0).reshape(()), np.arange(2, dtype="f4")]


class World:
    """A replica that takes the same time for each batch, and a connection."""

    def __init__(self, monkeypatch, state=METRICS):
        self.now, self.sent, self.state = 100.0, [], list(state)
        self.reads = 0
        monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def send(self, meta, arrays):
        self.sent.append((read_report(meta), arrays))

    def metric_state(self):
        self.reads += 1
        return self.state

    def train(self, reporter, batches, seconds, epoch=0):
        """Train an epoch with batches of 10 examples. Returns the lengths of the pieces."""
        reporter.begin(epoch, 10 * batches)
        lengths = []
        for start, stop in reporter.pieces(0, batches):
            self.now += (stop - start) * seconds
            lengths.append(stop - start)
            reporter.trained(self, 10 * (stop - start))
        return lengths


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


@given(st.integers(0, 30), st.integers(0, 300), st.floats(0.0, 1.0), st.booleans())
def test_pieces_are_the_whole_window_in_order(start, count, seconds, reports):
    with pytest.MonkeyPatch.context() as patch:
        world = World(patch)
        reporter = Reporter(world.send if reports else None)
        expected = start
        for first, stop in reporter.pieces(start, start + count):
            assert first == expected < stop
            world.now += seconds * (stop - first)
            expected = stop
        assert expected == start + count


def test_pieces_grow_until_they_take_long_enough_also_in_later_epochs(world):
    reporter = Reporter(world.send)
    assert world.train(reporter, 400, 0.002) == [1, 2, 4, 8, 16, 32, 64, 128, 128, 17]
    assert world.train(reporter, 400, 0.002, epoch=1) == [128, 128, 128, 16]
    assert max(world.train(reporter, 400, 0.1, epoch=2)[8:]) * 0.1 <= REPORT_SECONDS


def test_the_first_piece_may_be_slow_because_it_is_traced(world):
    reporter = Reporter(world.send)
    reporter.begin(0, 100)
    pieces = reporter.pieces(0, 10)
    assert next(pieces) == (0, 1)
    world.now += 20.0
    assert next(pieces) == (1, 2)
    assert next(pieces) == (2, 4)


def test_reports_come_about_twice_per_second_and_at_the_end(world):
    world.train(Reporter(world.send), 100, 0.01, epoch=3)
    reports = [report for report, _ in world.sent]
    assert {(report.epoch, report.total) for report in reports} == {(3, 1000)}
    assert [report.num_examples for report in reports] == [630, 1000]
    assert all(arrays == METRICS for _, arrays in world.sent)


def test_a_short_epoch_is_not_reported(world):
    assert sum(world.train(Reporter(world.send), 100, 0.001)) == 100
    assert (world.sent, world.reads) == ([], 0)


def test_without_a_connection_nothing_is_divided_or_read(world):
    assert world.train(Reporter(), 100, 1.0) == [100]
    assert world.reads == 0


def test_with_a_limit_on_steps_pieces_are_short_although_nothing_is_reported(world):
    assert world.train(Reporter(short=True), 10, 1.0) == [1] * 10
    assert world.train(Reporter(short=True), 15, 0.01) == [1, 2, 4, 8]
    assert world.sent == []


def test_the_time_of_a_piece_is_that_of_training(world):
    reporter = Reporter()
    assert current().kind == OTHER
    for _ in reporter.pieces(0, 2):
        assert current().kind == TRAINING
    assert current().kind == OTHER


@pytest.mark.parametrize("seconds", [0.0001, 10.0])
def test_reports_by_batches_do_not_depend_on_the_time(world, seconds):
    assert world.train(Reporter(world.send, 4), 10, seconds) == [4, 4, 2]
    assert [report.batches for report, _ in world.sent] == [4, 8, 10]
    assert [report.num_examples for report, _ in world.sent] == [40, 80, 100]
    assert all(arrays == METRICS for _, arrays in world.sent)


def test_reports_by_batches_count_over_windows_and_from_where_a_replica_begins(world):
    reporter = Reporter(world.send, 4)
    reporter.begin(0, 120, 30, 3)
    for window in (6, 3):
        for start, stop in reporter.pieces(0, window):
            reporter.trained(world, 10 * (stop - start))
    assert [report.batches for report, _ in world.sent] == [4, 8, 12]


def test_reports_by_batches_have_metrics_of_any_size(world):
    world.state = [np.zeros(MAX_METRIC_BYTES + 1, "u1")]
    world.train(Reporter(world.send, 5), 10, 0.1)
    assert [len(arrays) for _, arrays in world.sent] == [1, 1]


@pytest.mark.parametrize(("every", "rows", "expected"), [(1, 1, 1), (7, 3, 3), (8, 4, 2)])
def test_all_shards_together_report_every_so_many_batches(tools, every, rows, expected):
    plan = tools.plan("synchronous", "epoch", callbacks_every=every)
    fit = FitTask("fit", plan, {**dict.fromkeys(range(rows), 9), 99: 0}, 1)
    assert fit.batches_per_report == expected
    plan = tools.plan("synchronous", "epoch")
    assert FitTask("fit", plan, {0: 9}, 1).batches_per_report is None


def test_metrics_that_are_large_are_not_sent(world):
    world.state = [np.zeros(MAX_METRIC_BYTES + 1, "u1")]
    world.train(Reporter(world.send), 100, 0.1)
    assert len(world.sent) > 3
    assert not any(arrays for _, arrays in world.sent)
    assert world.reads == 1


def test_the_driver_adds_what_the_shards_have_reported_last():
    running = Running()
    assert running.at(0) == Moment()
    for shard, epoch, done in [(1, 0, 10), (0, 0, 20), (1, 0, 30), (2, 1, 5), (3, 0, 999)]:
        running.take(shard, ProgressReport(epoch, done, 100), [METRICS[0]] if shard else [])
    moment = running.at(0)
    assert moment.num_examples == 20 + 30 + 100 + 100  # shard 2 is ahead
    assert moment.metrics == [[METRICS[0]], [METRICS[0]]]
    assert running.at(1).num_examples == 5
    running.take(2, ProgressReport(0, 40, 100), [])  # its epoch starts again
    assert running.at(1) == Moment()
