"""States of shards on the driver's disk; without Spark."""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from kspark.cluster import records
from kspark.cluster.bootstrap import Enclosed
from kspark.cluster.records import joined
from kspark.cluster.spark_job import JobLostError
from kspark.job import collecting, kept_states
from kspark.job.kept_states import KeptStates
from kspark.shards import Chunk, Shard, spool
from kspark.worker.state import ShardState
from kspark.worker.tasks import MissingShard, ShardResult


class Host:
    """Stands for Spark and an executor that has some shards."""

    def __init__(self, monkeypatch, folder, shards=(0, 1)):
        self.infos = [
            spool([Chunk([np.arange(3)])], index, "run", directory=str(folder)) for index in shards
        ]
        self.handles, self.submitted, self.lost = self, [], False
        self.strays, self.records = [], []
        self.groups, self.share = True, Enclosed
        monkeypatch.setattr(kept_states, "engine_of", lambda spark: self)
        monkeypatch.setattr(kept_states, "run", self.run)
        monkeypatch.setattr(collecting, "run", self.run)

    def mapPartitionsWithIndex(self, task):
        return task

    def run(self, spark, task, description, wanted=None, watch=None):
        self.submitted.append(wanted)
        if self.lost:
            raise JobLostError("an executor is gone")
        strays = self.strays.pop(0) if self.strays else ()
        chosen = [handle for handle in self.infos if handle.index in wanted]
        away = [MissingShard(handle.index, "b", "a") for handle in chosen if handle.index in strays]
        here = [handle for handle in chosen if handle.index not in strays]
        records = [r for handle in here for r in task(handle.index, [handle.to_json()])]
        self.records += records
        return [*away, *joined(records)]

    def state(self, index):
        return ShardState("fit", Shard(self.infos[index]))

    def save(self, index, epoch):
        model = SimpleNamespace(
            get_optimizer_state=lambda: [np.arange(4.0) + epoch],
            get_fixed=lambda: [np.array(index)],
        )
        self.state(index).save(model, epoch)


@pytest.fixture
def states(tmp_path, monkeypatch):
    (tmp_path / "driver").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "driver"))
    made = KeptStates(None, "fit")
    yield made
    made.close()
    assert list((tmp_path / "driver").iterdir()) == []


def test_the_files_of_a_shard_move_with_it(tmp_path, monkeypatch, states):
    before = Host(monkeypatch, tmp_path / "before")
    states.fetch(before)
    assert before.submitted == []  # nothing is trained yet
    states.epoch = 4
    before.save(1, 4)
    states.fetch(before)
    after = Host(monkeypatch, tmp_path / "after")
    states.restore(after, [0, 1])
    assert after.submitted == [[1]]
    optimizer, fixed = after.state(1).load(4)
    assert (optimizer[0].tolist(), fixed[0]) == ([4, 5, 6, 7], 1)
    assert states.epochs == {}  # later tasks need not find just this state


def test_files_that_travel_are_kept_and_taken_out_of_the_results(tmp_path, monkeypatch, states):
    states.travels, states.epoch = True, 2
    host = Host(monkeypatch, tmp_path / "host")
    files = {"state": np.frombuffer(b"abc", np.uint8)}
    kept = states.take([ShardResult(0, 5, files=files), ShardResult(1, 5)], 2)
    assert kept == [ShardResult(0, 5), ShardResult(1, 5)]
    assert states.epochs == {0: 2}
    states.fetch(host)
    assert host.submitted == []
    states.restore(host, [0])
    assert (host.state(0).folder / "2.state").read_bytes() == b"abc"
    assert states.epochs == {0: 2}


def test_a_state_that_could_not_be_collected_does_not_leave_an_older_one(
    tmp_path, monkeypatch, states
):
    states.travels = True
    host = Host(monkeypatch, tmp_path / "host")
    for epoch, shards in ((0, (0, 1)), (1, (0,))):
        for index in shards:
            host.save(index, epoch)
        states.collect(host, epoch, 0)
    assert states.epochs == {0: 1}


def test_nothing_is_fetched_from_an_executor_that_does_not_answer(tmp_path, monkeypatch, states):
    host = Host(monkeypatch, tmp_path / "host")
    states.epoch, states.unreachable = 0, frozenset({1})
    states.fetch(host)
    assert host.submitted == [[0]]


@pytest.mark.parametrize("grouped", [True, False])
def test_the_driver_has_the_files_of_a_few_shards_at_a_time(monkeypatch, tmp_path, grouped, states):
    host = Host(monkeypatch, tmp_path / "host", range(20))
    host.groups, states.epoch = grouped, 0
    states.fetch(host)
    sizes = [len(some) for some in host.submitted]
    assert sizes == ([16, 4] if grouped else [20])


def test_a_fit_goes_on_if_states_cannot_be_moved(tmp_path, monkeypatch, states, caplog):
    host = Host(monkeypatch, tmp_path / "host")
    host.save(0, 0)
    states.epoch = 0
    host.lost = True
    states.fetch(host)
    assert states.epochs == {}
    host.lost = False
    states.fetch(host)
    host.lost = True
    states.restore(host, [0])
    assert host.submitted[-1] == [0]
    assert "Shards [0] have moved without their optimizer states" in caplog.text


def test_a_task_on_another_executor_is_submitted_once_more(tmp_path, monkeypatch, states, caplog):
    host, after = Host(monkeypatch, tmp_path / "a"), Host(monkeypatch, tmp_path / "b")
    states.epoch = 3
    host.strays, after.strays = [(0,)], [(1,), (1,)]
    for index in (0, 1):
        host.save(index, 3)
    monkeypatch.setattr(kept_states, "run", host.run)
    states.fetch(host)
    assert (host.submitted, states.epochs) == ([[0, 1], [0]], {0: 3, 1: 3})
    monkeypatch.setattr(kept_states, "run", after.run)
    states.restore(after, [0, 1])
    assert after.submitted == [[0, 1], [1]]
    assert (after.state(0).newest(), after.state(1).newest()) == (3, None)
    assert "Shards [1] have moved without their optimizer states" in caplog.text


def test_large_states_are_fetched_in_pieces(tmp_path, monkeypatch, states):
    monkeypatch.setattr(records, "LARGEST_RECORD", 16)
    before, after = (Host(monkeypatch, tmp_path / place) for place in "ab")
    states.epoch = 3
    before.save(0, 3)
    whole = kept_states.run
    monkeypatch.setattr(kept_states, "run", before.run)
    states.fetch(before)
    monkeypatch.setattr(kept_states, "run", whole)
    states.restore(after, [0])
    assert after.state(0).load(3)[0][0].tolist() == [3, 4, 5, 6]
    assert sum(isinstance(record, records.Piece) for record in before.records) > 2


@pytest.mark.parametrize(("in_step", "moved"), [(True, 5), (False, 7)])
def test_the_newest_state_moves_that_the_shard_can_begin_with(
    tmp_path, monkeypatch, states, in_step, moved, caplog
):
    """A late shard has an older one than the others, an asynchronous one may be ahead."""
    before, after = (Host(monkeypatch, tmp_path / place) for place in "ab")
    states.epoch, states.in_step = 6, in_step
    for epoch in (5, 7):
        before.save(0, epoch)
    before.save(1, 2)
    monkeypatch.setattr(kept_states, "run", before.run)
    states.fetch(before)
    assert states.epochs == {0: moved, 1: 2}
    monkeypatch.setattr(kept_states, "run", after.run)
    states.restore(after, [0, 1])
    assert [after.state(index).newest() for index in (0, 1)] == [moved, 2]
    assert "without" not in caplog.text


def test_a_late_shard_moves_with_the_state_of_the_last_result_that_came(
    tmp_path, monkeypatch, states
):
    host = Host(monkeypatch, tmp_path / "host")
    states.epoch, states.trained = 4, {0: 5, 1: 1}
    for index, epochs in ((0, (4, 5)), (1, (1, 3))):
        for epoch in epochs:
            host.save(index, epoch)
    states.fetch(host)
    assert states.epochs == {0: 5, 1: 1}
