"""Spool examples, spool them again, and delete their files; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark.adapters.factories import FactoryRows
from kspark.cluster.spark_job import JobLostError
from kspark.job import spooling
from kspark.job.spooling import CLEAN_UP_SECONDS, SpooledExamples, StreamedExamples
from kspark.plan import TrainingPlan
from kspark.shards import ShardHandle
from kspark.worker.spooling import Again


def handle(index, rows):
    return ShardHandle(index, rows, f"/nowhere/{index}", "host", 0).to_json()


class SpooledTwice:
    """Stands for `Examples` and their RDD: returns other handles each time."""

    def __init__(self, *turns):
        self.turns = list(turns)
        self.closed = 0
        self.kept = False
        self.cleaned = []

    def map_chunks(self, task):
        return self

    def persist(self, level):
        self.kept = True
        return self

    def unpersist(self, blocking):
        self.kept = False

    def mapPartitionsWithIndex(self, task):
        return "clean up"

    def close(self):
        assert not self.kept
        self.closed += 1


class EveryHost:
    """Stands for the engine, whose tasks reach every executor."""

    def __init__(self, examples):
        self.examples = examples

    def on_every_slot(self, task, per_slot):
        assert not self.examples.kept, "the handles would be asked for again"
        return task.func.__name__


@pytest.fixture
def spooled(monkeypatch):
    """Return examples whose shards have these numbers of rows at each spooling."""

    def make(*turns, failing=False):
        examples = SpooledTwice(*turns)

        def run(spark, rdd, description, partitions=None, timeout=None, watch=None):
            if isinstance(rdd, str):
                examples.cleaned.append((rdd, timeout, examples.closed))
            if isinstance(rdd, str) and failing:
                raise JobLostError("no executor is left")
            rows = [] if isinstance(rdd, str) else examples.turns.pop(0)
            return [handle(i, n) for i, n in enumerate(rows)]

        monkeypatch.setattr(spooling, "run", run)
        monkeypatch.setattr(spooling, "run_once", run)
        monkeypatch.setattr(spooling, "engine_of", lambda spark: EveryHost(examples))
        return SpooledExamples(None, examples, "run"), examples

    return make


def test_input_that_gives_the_same_rows_may_be_read_again(spooled):
    spool, examples = spooled([3, 4], [3, 4])
    with spool:
        spool.respool()
        assert spool.counts == {0: 3, 1: 4}
        assert not examples.closed
    assert examples.cleaned == [("clean up", None, 0)]
    assert examples.closed


def test_the_workers_of_a_stream_keep_their_slots_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    tasks, slept = [], []
    rows = FactoryRows(None, None, 1)
    examples = SimpleNamespace(rows=rows, map_workers=tasks.append)
    plan = TrainingPlan.create(seed=1, steps_per_epoch=2)
    stream = StreamedExamples(None, examples, "run", plan)
    stream._written(Again((str(tmp_path),), 5.0, 100.0))
    clock = SimpleNamespace(time=lambda: 95.0, sleep=slept.append)
    monkeypatch.setattr("kspark.worker.spooling.time", clock)
    monkeypatch.setattr(FactoryRows, "chunks", lambda *call, **more: (c for c in ()))
    assert len(list(tasks[0](0, iter(())))) == 1
    assert (slept, tmp_path.exists()) == ([5.0], True)


def test_input_that_gives_other_rows_the_second_time_is_refused(spooled):
    spool, examples = spooled([3, 4], [4, 3])
    with (
        pytest.raises(ValueError, match="same rows each time.* instead of .*Persist the input"),
        spool,
    ):
        spool.respool()
    assert examples.closed


@pytest.mark.parametrize("failing", [False, True])
def test_files_of_a_failed_spool_are_deleted_on_every_host(spooled, failing, caplog):
    spool, examples = spooled(failing=failing)
    with pytest.raises(IndexError):
        spool.__enter__()
    assert examples.cleaned == [("clean_host", CLEAN_UP_SECONDS, 0)]
    assert examples.closed
    assert ("no executor is left" in caplog.text) == failing


def test_files_of_a_failed_second_spool_are_deleted_once(spooled):
    spool, examples = spooled([3])
    with pytest.raises(IndexError), spool:
        spool.respool()
    assert examples.cleaned == [("clean_host", CLEAN_UP_SECONDS, 0)]
    assert examples.closed
