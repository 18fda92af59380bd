"""Which shards are submitted again, and how often; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark.cluster.spark_job import JobLostError
from kspark.errors import ClusterError, Failure, WorkerError
from kspark.job import collecting
from kspark.job.collecting import BUSY_SECONDS, MAX_STRAYS, ShardsMissing, checked, collect_shards
from kspark.worker.tasks import MissingShard, ShardResult


def stray(shard):
    return MissingShard(shard, "there", "here")


def gone(shard):
    return MissingShard(shard, "here", "here")


def good(shard, rows=5):
    return ShardResult(shard, rows)


class Jobs:
    """Stands for Spark: answers each submission with the next of some outcomes."""

    def __init__(self, monkeypatch, *outcomes):
        self.outcomes, self.asked, self.respooled = list(outcomes), [], 0
        monkeypatch.setattr(collecting, "run", self.run)
        self.handles = SimpleNamespace(mapPartitionsWithIndex=lambda task: task)

    def run(self, spark, rdd, description, partitions, watch=None):
        self.asked.append(partitions)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def respool(self):
        self.respooled += 1

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
        ClusterError, match=rf"shards \[1\] on hosts without their files, {MAX_STRAYS + 1} times"
    ):
        jobs.collect()
    assert jobs.asked == [None] + [[1]] * MAX_STRAYS


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
    with pytest.raises(ShardsMissing):
        checked([good(0), stray(1)])
