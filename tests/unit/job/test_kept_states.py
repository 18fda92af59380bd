"""States of shards on the driver's disk; without Spark."""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from kspark.cluster.bootstrap import Enclosed
from kspark.cluster.spark_job import JobLostError
from kspark.job import collecting, kept_states
from kspark.job.kept_states import KeptStates
from kspark.shards import Chunk, Shard, spool
from kspark.worker.state import ShardState
from kspark.worker.tasks import ShardResult


class Host:
    """Stands for Spark and an executor that has some shards."""

    def __init__(self, monkeypatch, folder, shards=(0, 1)):
        self.infos = [
            spool([Chunk([np.arange(3)])], index, "run", directory=str(folder)) for index in shards
        ]
        self.handles, self.submitted, self.lost = self, [], False
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
        chosen = [handle for handle in self.infos if handle.index in wanted]
        return [r for handle in chosen for r in task(handle.index, [handle.to_json()])]

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


@pytest.mark.parametrize("grouped", [True, False])
def test_the_driver_has_the_files_of_a_few_shards_at_a_time(monkeypatch, tmp_path, grouped, states):
    host = Host(monkeypatch, tmp_path / "host", range(20))
    host.groups, states.epoch = grouped, 0
    states.fetch(host)
    sizes = [len(some) for some in host.submitted]
    assert sizes == ([16, 4] if grouped else [20])


def test_a_fit_goes_on_if_states_cannot_be_moved(tmp_path, monkeypatch, states):
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
