"""A fit goes on without executors that do not answer; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark.errors import ClusterError
from kspark.job import lost_hosts
from kspark.job.lost_hosts import ANSWER_SECONDS, HOLD_SECONDS, hosts, leave_lost_hosts
from kspark.shards import ShardHandle


class Count:
    """Stands for an accumulator."""

    def __init__(self, value):
        self.value = value

    def add(self, number):
        self.value += number


class Shards:
    """Stands for shards on disk, one on each of these executors."""

    def __init__(self, name, marks, log):
        self.name, self.log = name, log
        self.infos = [
            ShardHandle(i, 5, f"/{mark}/run/s", f"host-{mark}", 0, mark=mark)
            for i, mark in enumerate(marks)
        ]

    def respool(self, hold):
        self.log.append((self.name, hold, self.states.unreachable))


class Cluster:
    """Stands for Spark: tasks run on executors that answer, and never end on the others."""

    def __init__(self, monkeypatch, executors, answering):
        self.executors, self.answering = list(executors), answering
        self.now, self.jobs, self.respooled = 0.0, [], []
        self.leaves_at = {}
        self.sparkContext = SimpleNamespace(accumulator=Count)
        monkeypatch.setattr(lost_hosts, "engine_of", lambda spark: self)
        monkeypatch.setattr(lost_hosts, "ship", lambda function, *arguments: arguments)
        monkeypatch.setattr(lost_hosts, "SparkJob", self.job)
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr(lost_hosts, "time", clock)

    def addresses(self):
        stay = [e for e in self.executors if self.leaves_at.get(e, 1e9) > self.now]
        return frozenset(["driver", *stay])

    def on_every_slot(self, task):
        return task

    def sleep(self, seconds):
        self.now += seconds

    def job(self, spark, task, description):
        documents, answers = task
        job = SimpleNamespace(cancelled=False)

        def start():
            for document, count in zip(documents, answers, strict=True):
                if self.answers(ShardHandle.from_json(document).mark):
                    count.add(1)
            return job

        def cancel():
            job.cancelled = True

        job.start, job.cancel = start, cancel
        job.finished = SimpleNamespace(is_set=lambda: True)
        self.jobs.append(job)
        return job

    def answers(self, mark):
        return self.now >= self.answering.get(mark, 1e9)

    def fit(self, marks, held_out=None, unmixed=None):
        made = SimpleNamespace(spark=self, states=SimpleNamespace(unreachable=frozenset()))
        Shards.states = made.states
        made.train = Shards("train", marks, self.respooled)
        made.held_out = held_out and Shards("held out", held_out, self.respooled)
        made.unmixed = unmixed and SimpleNamespace(
            shards=Shards("unmixed", unmixed, self.respooled)
        )
        return made


def test_shards_of_an_executor_that_does_not_answer_are_written_again(monkeypatch, caplog):
    cluster = Cluster(monkeypatch, "abc", {"a": 0, "c": 0})
    fit = cluster.fit("abcb", held_out="ab", unmixed="abc")
    leave_lost_hosts(fit, {1})
    # The rows from which others are mixed come first, and nothing is fetched of the lost shards.
    names = ["unmixed", "train", "held out"]
    assert cluster.respooled == [(name, HOLD_SECONDS, {1, 3}) for name in names]
    assert fit.states.unreachable == set()
    assert "no answer from host host-b (shards 1, 3)" in caplog.text
    assert cluster.now > ANSWER_SECONDS
    assert cluster.jobs[-1].cancelled


def test_only_shards_on_lost_executors_are_written_again(monkeypatch):
    cluster = Cluster(monkeypatch, "abc", {"a": 0})
    leave_lost_hosts(cluster.fit("ab", held_out="ac"), {1})
    assert [name for name, *_ in cluster.respooled] == ["train"]


@pytest.mark.parametrize("seconds", [0.0, ANSWER_SECONDS / 2])
def test_nothing_moves_if_the_executor_answers_in_time(monkeypatch, seconds):
    """The link may be whole again, and the slots of the executor become free."""
    cluster = Cluster(monkeypatch, "ab", {"b": seconds})
    leave_lost_hosts(cluster.fit("ab"), {1})
    assert cluster.respooled == []
    assert cluster.now <= seconds + 1.0


def test_nothing_moves_if_spark_has_noticed_itself(monkeypatch):
    cluster = Cluster(monkeypatch, "abc", {})
    cluster.leaves_at = {"b": 3.0}
    leave_lost_hosts(cluster.fit("abc"), {1})
    assert cluster.respooled == []


def test_shards_without_a_mark_stay(monkeypatch):
    cluster = Cluster(monkeypatch, "ab", {})
    leave_lost_hosts(cluster.fit(["a", ""]), {1})
    assert (cluster.respooled, cluster.jobs) == ([], [])


def test_without_other_executors_the_error_names_the_host(monkeypatch):
    cluster = Cluster(monkeypatch, "b", {})
    with pytest.raises(ClusterError, match=r"no answer from host host-b \(shards 0, 1\)"):
        leave_lost_hosts(cluster.fit("bb"), {0})
    assert cluster.respooled == []


def test_hosts_are_named_with_their_shards():
    assert hosts([3, 1, 2], {1: "b", 2: "a", 3: "b"}) == "host a (shard 2), host b (shards 1, 3)"
