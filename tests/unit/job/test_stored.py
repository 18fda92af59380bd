"""Uses of spooled rows after jobs and files were lost; without Spark."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kspark.adapters.spooled import Group, Layout, StoredPlan
from kspark.cluster.spark_job import JobLostError
from kspark.data.spooling import SpooledData
from kspark.errors import ClusterError, WorkerError
from kspark.job import spooling, stored
from kspark.job.stored import LinkedExamples, SpooledRows, StoredExamples
from kspark.shards import ArraySpec, InputSpec, ShardHandle
from kspark.worker.mixing import missing_json
from kspark.worker.tasks import MissingShard

HANDLE = ShardHandle(0, 3, "/a/kspark-spool/shard-00000", "old", 9)
LAYOUT = Layout(Group(("x",)))


class Handles:
    """Stands for persisted results; `run` gets what a job would compute."""

    def mapPartitionsWithIndex(self, task):
        return self

    def unpersist(self, blocking):
        pass


class Source:
    closed = 0

    def close(self):
        self.closed += 1


@pytest.fixture
def rows(monkeypatch):
    made = SpooledRows(SimpleNamespace(), Source(), "spool")
    made.handles, made.infos, made.outcomes = Handles(), [HANDLE], []

    def run(spark, results, description, *rest, **more):
        outcome = made.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    for module in (stored, spooling):
        monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(spooling, "run_once", run)
    return made


def tried(rows, *outcomes):
    """What a use returns whose jobs end in this way."""
    plan = StoredPlan.of(LAYOUT, InputSpec((ArraySpec("x"),)))
    left = list(outcomes)

    def run_job():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def missing_in(results):
        return [one for one in results if isinstance(one, MissingShard)]

    return StoredExamples(rows, plan, rows.counts, None).tried(run_job, missing_in)


def test_a_job_that_is_lost_while_rows_are_looked_for_is_counted(rows):
    lost = JobLostError("an executor died")
    moved = replace(HANDLE, host="new")
    rows.outcomes = [lost, lost, [], [moved.to_json()]]
    assert tried(rows, lost, ["done"]) == ["done"]
    assert rows.infos == [moved]
    rows.outcomes = [lost] * 3
    with pytest.raises(WorkerError, match="an executor died"):
        tried(rows, [MissingShard(0, "old", "old")], lost)


def test_rows_that_another_thread_could_not_spool_again_are_gone(rows):
    rows.handles = None
    for use in (rows.respool, lambda: rows.documents, lambda: tried(rows, JobLostError("lost"))):
        with pytest.raises(ClusterError, match="The spooled rows are gone"):
            use()


def test_new_places_are_noticed(rows):
    link = replace(HANDLE, path="/a/kspark-fit/shard-00000")
    rows.noticed([link])
    moved = replace(HANDLE, path="/b/kspark-spool/shard-00000")
    rows.outcomes = [[moved.to_json()]]
    rows.noticed([replace(link, path="/b/kspark-fit/shard-00000")])
    assert rows.infos == [moved] and not rows.outcomes
    rows.outcomes = [JobLostError("lost")]
    rows.noticed([link])
    assert rows.infos == [moved]
    assert json.loads(moved.to_json())["host"] == "old"


def test_shards_are_made_again_if_a_handle_was_computed_where_the_rows_are_not(rows, monkeypatch):
    made = []
    shards = LinkedExamples(SimpleNamespace(), None, "fit")
    shards.handles = Handles()
    monkeypatch.setattr(shards, "respool", lambda: made.append(shards.infos))
    rows.outcomes = [[HANDLE.to_json()], [HANDLE.to_json(), missing_json(HANDLE)]]
    shards.look()
    assert (shards.infos, made) == ([HANDLE], [])
    shards.look()
    assert made == [[HANDLE]]


@pytest.mark.parametrize("respooled", [False, True])
def test_executors_that_had_rows_before_are_cleaned_as_well(rows, monkeypatch, respooled):
    discarded = []
    monkeypatch.setattr(SpooledRows, "_discard", lambda rows: discarded.append(rows))
    monkeypatch.setattr(spooling.SpooledExamples, "respool", lambda *call, **more: None)
    rows.outcomes = [[]]
    if respooled:
        rows.outcomes = [[0], []]  # shard 0 was not found
        rows.respool()
    rows.close()
    assert discarded == [rows] * respooled
    assert rows.handles is None


def test_rows_whose_deletion_was_interrupted_can_be_closed_again(rows, monkeypatch):
    monkeypatch.setattr("kspark.data.spooling.is_stopped", lambda spark: False)
    data = SpooledData(rows, LAYOUT)
    rows.outcomes = [KeyboardInterrupt(), []]
    with pytest.raises(KeyboardInterrupt):
        data.close()
    assert not data.is_closed
    data.close()
    assert data.is_closed and rows.handles is None and rows._examples.closed == 1
    data.close()
    assert rows._examples.closed == 1
