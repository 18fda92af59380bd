"""Which shards are submitted again, and how often; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark.cluster.spark_job import JobLostError
from kspark.errors import ClusterError, Failure, WorkerError
from kspark.job import collecting
from kspark.job.collecting import (
    BUSY_SECONDS,
    MAX_STRAYS,
    STRAYS_PER_MOVE,
    ShardsMissing,
    checked,
    collect_shards,
)
from kspark.worker.tasks import GONE, STATELESS, MissingShard, ShardResult


def stray(shard):
    return MissingShard(shard, "there", "here")


def gone(shard):
    return MissingShard(shard, "here", "here", GONE)


def good(shard, rows=5):
    return ShardResult(shard, rows)


class Jobs:
    """Stands for Spark: answers each submission with the next of some outcomes."""

    def __init__(self, monkeypatch, *outcomes):
        self.outcomes, self.asked, self.respooled = list(outcomes), [], 0
        self.states, self.restored = self, []
        monkeypatch.setattr(collecting, "run", self.run)
        self.handles = SimpleNamespace(mapPartitionsWithIndex=lambda task: task)

    def run(self, spark, rdd, description, partitions, watch=None):
        self.asked.append(partitions)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def respool(self, hold=0.0, delete=True):
        self.respooled += 1

    def restore(self, spooled, wanted):
        assert spooled is self
        self.restored.append(list(wanted))

    def collect(self, max_failures=2, **more):
        results = collect_shards(None, self, "task", "what", max_failures, **more)
        return [r.shard for r in results]


def test_results_come_in_the_order_of_the_shards_without_empty_ones(monkeypatch):
    jobs = Jobs(monkeypatch, [good(2), good(0), good(1, rows=0)])
    assert jobs.collect() == [0, 2]
    assert jobs.asked == [None]


def test_only_strayed_shards_are_submitted_again(monkeypatch):
    jobs = Jobs(monkeypatch, [good(0), stray(3), good(2), stray(1)], [stray(1), good(3)], [good(1)])
    assert jobs.collect(max_failures=0) == [0, 1, 2, 3]
    assert jobs.asked == [None, [1, 3], [1]]
    assert jobs.respooled == 0


def test_shards_with_a_result_are_not_submitted_again(monkeypatch):
    """Spark Connect runs all shards each time, and tasks may run on other hosts then."""
    jobs = Jobs(monkeypatch, [good(0), stray(1)], [stray(0), good(1)])
    assert jobs.collect() == [0, 1]
    assert jobs.asked == [None, [1]]


def test_a_job_fails_if_its_tasks_keep_running_on_other_hosts(monkeypatch):
    jobs = Jobs(monkeypatch, [good(0), stray(1)], [stray(1)])
    with pytest.raises(
        ClusterError,
        match=rf"shards \[1\] on executors without their files, {MAX_STRAYS + 1} times.*"
        r"written on hosts \['here'\].*ran on hosts \['there'\]",
    ):
        jobs.collect()
    assert jobs.asked == [None] + [[1]] * (MAX_STRAYS + 1)  # the first one had a result
    assert jobs.respooled == MAX_STRAYS // STRAYS_PER_MOVE


def test_shards_move_if_nothing_else_of_the_job_held_their_slots(monkeypatch, caplog):
    jobs = Jobs(
        monkeypatch, *[[good(n), stray(9)] for n in range(3)], [stray(9)], [stray(9)], [good(9)]
    )
    assert jobs.collect() == [0, 1, 2, 9]
    assert jobs.respooled == 1
    assert "tasks of shards [9] run on executors without their files" in caplog.text


def test_a_state_that_is_missing_is_written_before_the_shard_is_submitted_again(monkeypatch):
    stateless = MissingShard(1, "here", "here", STATELESS)
    jobs = Jobs(monkeypatch, [good(0), stateless, stray(2)], [good(1), good(2)])
    assert jobs.collect() == [0, 1, 2]
    assert (jobs.restored, jobs.respooled) == ([[1]], 0)
    jobs = Jobs(monkeypatch, [stateless])
    with pytest.raises(ClusterError, match=r"states of shards \[1\] .* gone again"):
        jobs.collect()
    assert len(jobs.restored) == MAX_STRAYS
    jobs = Jobs(monkeypatch, [stateless])
    jobs.states = None
    with pytest.raises(ClusterError, match=r"shards \[1\] lack .* the driver has no copies"):
        jobs.collect()


def test_missing_states_are_not_counted_while_other_tasks_have_results(monkeypatch):
    count = MAX_STRAYS + 2
    turns = [[good(n), MissingShard(99, "here", "here", STATELESS)] for n in range(count)]
    jobs = Jobs(monkeypatch, *turns, [good(99)])
    assert jobs.collect() == [*range(count), 99]
    assert jobs.restored == [[99]] * count


def test_strays_are_not_counted_while_other_work_holds_their_slots(monkeypatch):
    """They wait for `BUSY_SECONDS` before each submission."""
    slept = []
    monkeypatch.setattr(collecting, "time", SimpleNamespace(sleep=slept.append))
    held = [[good(0), stray(1)], *[[stray(1)]] * (2 * MAX_STRAYS)]
    jobs = Jobs(monkeypatch, *held, [good(1)])
    assert jobs.collect(busy=lambda: True) == [0, 1]
    assert slept == [BUSY_SECONDS] * (2 * MAX_STRAYS + 1)
    jobs = Jobs(monkeypatch, *held)
    with pytest.raises(ClusterError):
        jobs.collect(busy=lambda: len(jobs.asked) < 5)
    assert len(jobs.asked) == 5 + MAX_STRAYS
    assert jobs.respooled == MAX_STRAYS // STRAYS_PER_MOVE


def test_lost_files_are_spooled_again_and_results_kept(monkeypatch):
    jobs = Jobs(monkeypatch, [good(0), gone(1), stray(2)], [good(1), good(2)])
    assert jobs.collect() == [0, 1, 2]
    assert jobs.asked == [None, [1, 2]]
    assert jobs.respooled == 1


def test_a_lost_job_is_submitted_again_for_what_is_still_missing(monkeypatch):
    lost = JobLostError("an executor is gone")
    jobs = Jobs(monkeypatch, lost, [good(0), stray(1)], lost, [good(1)])
    assert jobs.collect() == [0, 1]
    assert jobs.asked == [None, None, [1], [1]]


@pytest.mark.parametrize("outcome", [JobLostError("gone"), [gone(0)]])
def test_a_job_that_is_lost_too_often_raises_an_error(monkeypatch, outcome):
    jobs = Jobs(monkeypatch, outcome)
    with pytest.raises(WorkerError):
        jobs.collect(max_failures=1)
    assert len(jobs.asked) == 3  # the last one is for the shard to say so itself


def test_a_failure_is_raised_at_once(monkeypatch):
    jobs = Jobs(monkeypatch, [good(0), Failure(1, "here", 0, "ValueError", "a mistake", "")])
    with pytest.raises(WorkerError, match="a mistake"):
        jobs.collect()
    assert len(jobs.asked) == 1


def test_checked_results_are_sorted_and_complete(monkeypatch):
    assert [r.shard for r in checked([good(1), good(0), good(2, rows=0)])] == [0, 1]
    with pytest.raises(ShardsMissing, match=r"tasks of shards \[1\] run on executors") as found:
        checked([good(0), stray(1)])
    assert (found.value.strayed, found.value.gone) == ([1], [])
    with pytest.raises(ShardsMissing, match=r"files of shards \[2\] are gone"):
        checked([stray(1), gone(2)])
