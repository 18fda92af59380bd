"""What the driver does to mix rows between shards; without Spark."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kspark.cluster.failures import failure_json
from kspark.cluster.spark_job import JobLostError
from kspark.errors import ClusterError, WorkerError
from kspark.job import mixing as job
from kspark.job import spooling
from kspark.job.fit import Fit
from kspark.job.mixing import MixedShards, check_mixable, mix_rows, move_states, num_parts
from kspark.job.spooling import Unmixed
from kspark.plan import Mixing, TrainingPlan
from kspark.shards import Chunk, InputSpec, Shard, ShardHandle, StoredArray, spool
from kspark.worker.state import ShardState

MISSING = json.dumps({"missing": {"shard": 1, "host": "a", "home": "a"}}).encode()
STRAY = json.dumps({"missing": {"shard": 1, "host": "b", "home": "a"}}).encode()


def handle(index, rows, folder="/nowhere", shape=(4,), dtype="float32"):
    x = StoredArray("x0", dtype, shape, "x0.bin", rows * 16)
    return ShardHandle(index, rows, f"{folder}/shard-{index}", "here", rows * 16, x=(x,))


class Source:
    """Stands for spooled examples and for the RDD of what Spark does with them."""

    def __init__(self, *turns):
        self.turns = list(turns)
        self.respooled = self.kept = self.cleaned = 0
        self.handles, self.states = self, None
        self.infos = [handle(0, 6), handle(1, 2)]

    def mapPartitionsWithIndex(self, task):
        self.task = task
        return self

    def repartitionAndSortWithinPartitions(self, count, target):
        return self

    def persist(self, level):
        self.kept += 1
        return self

    def unpersist(self, blocking):
        self.kept -= 1

    def cleanShuffleDependencies(self):
        self.cleaned += 1

    def respool(self, hold=0.0, delete=True):
        self.respooled += 1


@pytest.fixture
def fit_of(monkeypatch):
    def make(source, **arguments):
        plan = TrainingPlan.create(seed=4, **{"epochs": 9, "reshuffle": 2, **arguments})
        progress = SimpleNamespace(watch=None, phase=lambda text: None)
        spec = SimpleNamespace(rows=InputSpec(()))
        fit = Fit(None, spec, plan, None, None, 0.0, None, None, progress)
        fit.train, fit.unmixed = source, Unmixed(source, {0: 6, 1: 2})

        def run(spark, results, description, **more):
            turn = source.turns.pop(0)
            if isinstance(turn, Exception):
                raise turn
            return turn

        monkeypatch.setattr(job, "run", run)
        monkeypatch.setattr(MixedShards, "_discard", lambda shards: None)
        return fit

    return make


def documents(*counts):
    return [handle(k, n).to_json() for k, n in enumerate(counts)]


def test_rows_are_mixed_before_each_period(fit_of, monkeypatch):
    source = Source(*[documents(4, 4)] * 3)
    fit, ended, moved = fit_of(source), [], []
    monkeypatch.setattr(job, "move_states", lambda fit, before, after, epoch: moved.append(epoch))
    periods = []
    for epoch in range(3, 8):
        mix_rows(fit, epoch, lambda: ended.append(len(moved)))
        periods.append(fit.train.mixing.period)
    assert periods == [1, 2, 2, 3, 3]
    assert (len(ended), moved) == (3, [3, 5])  # the first mixing has no states to move
    assert (source.kept, source.cleaned) == (1, 3)
    assert fit.train.counts == {0: 4, 1: 4}
    assert fit.divided == {0: 6, 1: 2}
    assert fit.validating is source
    assert fit.train.mixing == Mixing(4, 3, {0: 6, 1: 2})


def test_a_fit_that_does_not_mix_rows_does_nothing(fit_of):
    fit = fit_of(Source())
    fit.unmixed = None
    mix_rows(fit, 2)


def test_lost_jobs_and_stray_tasks_are_repeated_and_lost_files_written_again(fit_of):
    source = Source([STRAY], JobLostError("lost"), [*documents(4), MISSING], documents(4, 4))
    fit = fit_of(source)
    mix_rows(fit, 0)
    assert source.respooled == 1
    assert (source.kept, fit.train.num_examples) == (1, 8)
    source.turns = [documents(4, 4)]
    fit.train.respool()
    assert (source.kept, source.respooled) == (1, 1)


def test_a_task_that_mixes_again_keeps_its_slot_and_deletes_the_rows_of_before(
    fit_of, tmp_path, monkeypatch
):
    old = [handle(index, 4, tmp_path) for index in (0, 1)]
    source = Source([one.to_json() for one in old], *[documents(4, 4)] * 2)
    fit, slept = fit_of(source), []
    mix_rows(fit, 0)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path / "new"))
    clock = SimpleNamespace(time=lambda: 100.0, sleep=slept.append)
    monkeypatch.setattr("kspark.worker.spooling.time", clock)
    monkeypatch.setattr(job.time, "time", lambda: 100.0)
    for delete, left in ((False, True), (True, False)):
        (tmp_path / "shard-0").mkdir(exist_ok=True)
        fit.train.infos = old
        fit.train.respool(7.0, delete=delete)
        assert len(list(source.task(0, iter(())))) == 1
        assert (tmp_path / "shard-0").exists() == left
    assert slept == [7.0, 7.0]


def test_a_job_that_is_lost_again_and_again_ends_the_fit(fit_of):
    source = Source(*[JobLostError("lost")] * 5)
    fit = fit_of(source, max_failures=1)
    with pytest.raises(WorkerError):
        mix_rows(fit, 0)
    assert (source.kept, len(source.turns)) == (0, 2)
    assert fit.train is source


def test_a_failure_of_a_task_is_raised(fit_of):
    failure = failure_json(1, ValueError("fewer rows"))
    with pytest.raises(ValueError, match="fewer rows"):
        mix_rows(fit_of(Source([failure, *documents(4)])), 0)


class Model:
    def get_optimizer_state(self):
        return [np.array(3), np.arange(4.0)]

    def get_fixed(self):
        return []


def test_the_state_of_a_shard_follows_it_to_another_place(fit_of, tmp_path, monkeypatch):
    def spooled(*folders):
        made = [
            spool([Chunk([np.arange(3)])], k, "fit", directory=str(tmp_path / folder))
            for k, folder in enumerate(folders)
        ]
        return SimpleNamespace(infos=made)

    before, after = spooled("a", "b", "a"), spooled("a", "a", "b")
    after.infos[2] = replace(after.infos[2], num_examples=0)
    asked = []

    def collect(spark, shards, task, description, failures, wanted, watch):
        asked.append(wanted)
        found = [r for k in wanted for r in task(k, [shards.infos[k].to_json()])]
        return [r for r in found if r.num_examples]

    fit = fit_of(Source())
    fit.fit_id = "fit"
    for one in before.infos:
        ShardState("fit", Shard(one)).save(Model(), 5)
    shared = SimpleNamespace(share=lambda value: SimpleNamespace(value=value, destroy=list))
    monkeypatch.setattr(job, "engine_of", lambda spark: shared)
    monkeypatch.setattr(job, "collect_shards", collect)
    move_states(fit, before, after, 5)
    assert asked == [[1], [1]]
    assert ShardState("fit", Shard(after.infos[1])).load(5)[0][1].tolist() == [0, 1, 2, 3]
    asked.clear()
    move_states(fit, after, after, 5)
    assert asked == []


def test_states_that_cannot_be_moved_are_left_behind(fit_of, monkeypatch, caplog):
    """As the states of a host that is lost."""

    def fail(*call, **more):
        raise ClusterError("no host has the files")

    monkeypatch.setattr(job, "collect_shards", fail)
    before, after = [SimpleNamespace(infos=[handle(0, 3, place)]) for place in ("/a", "/b")]
    move_states(fit_of(Source()), before, after, 5)
    assert "states of shards [0] could not be moved: no host has the files" in caplog.text


def test_rows_stay_on_no_host_that_has_no_shard_any_more(fit_of, monkeypatch):
    there = replace(handle(1, 4), mark="of another executor")
    first = [handle(0, 4).to_json(), there.to_json()]
    source = Source(first, documents(4, 4), documents(4, 4))
    fit = fit_of(source)
    monkeypatch.setattr(job, "move_states", lambda *call: None)
    asked, discarded = [], []

    def run(spark, results, description, partitions, *more):
        asked.append(partitions)

    monkeypatch.setattr(spooling, "run", run)
    monkeypatch.setattr(MixedShards, "_discard", lambda shards: discarded.append(shards))
    for epoch in (0, 2, 4):
        mix_rows(fit, epoch)
    assert asked == [[1]]  # after the second mixing
    fit.train.close()
    assert (asked, discarded) == ([[1], None], [fit.train])


def test_rows_that_cannot_be_in_one_shard_are_refused():
    check_mixable([handle(0, 3), handle(1, 0, shape=()), handle(2, 4, dtype="int64")], 1)
    two = replace(handle(1, 3), y=handle(1, 3).x)
    for other, told in (
        (
            handle(1, 3, shape=(5,)),
            r"`x0` has numbers of shape \(4,\) in .*, numbers of shape \(5,\)",
        ),
        (handle(1, 3, dtype="string"), r"`x0` has numbers of .* in one partition, text of"),
        (two, r"one partition has the arrays \['x0'\], another \['x0', 'x0'\]"),
    ):
        with pytest.raises(ValueError, match=rf"`reshuffle` must be None if .*{told}"):
            check_mixable([handle(0, 3), other], 1)


def test_a_part_fits_into_memory():
    assert num_parts([handle(0, 6), handle(1, 0)], {0: 6, 1: 0}) == 1
    rows = 9 * job.PART_BYTES // 16
    assert num_parts([handle(0, rows), handle(1, rows)], {0: rows, 1: rows - 1}) == 9
    assert num_parts([handle(0, rows), handle(1, rows)], {0: rows // 2, 1: 0}) == 3
