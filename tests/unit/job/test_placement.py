"""When the shards of a fit are spread over the executors again; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark.cluster.spark_job import JobLostError
from kspark.job import placement
from kspark.job.placement import Placement, too_many
from kspark.job.spooling import moved_shards
from kspark.shards import ShardHandle


def shards_on(*marks):
    """Handles of shards on executors with these marks, and of an empty one."""
    handles = [ShardHandle(i, 5, f"/{m}/run/s", "h", 0, mark=m) for i, m in enumerate(marks)]
    return [*handles, ShardHandle(len(marks), 0, "/a/run/s", "h", 0, mark="a")]


@pytest.mark.parametrize(
    ("marks", "executors", "slots", "most"),
    [
        ("abc", 3, 1, 0),
        ("aaa", 3, 1, 3),
        ("aab", 3, 1, 2),
        ("aab", 2, 1, 0),  # two of three have to wait anywhere
        ("aab", 3, 2, 0),  # both run at the same time
        ("aaaabb", 3, 1, 4),
        ("aabbcc", 3, 1, 0),
        ("aaaabbbbbb", 2, 1, 0),  # five and five would not be twice as fast
        ("aaa", 3, 0, 3),  # slots are unknown
        ("", 3, 1, 0),
    ],
)
def test_an_executor_has_too_many_shards_if_another_one_could_take_some(
    marks, executors, slots, most
):
    assert too_many(shards_on(*marks), executors, slots) == most


class Cluster:
    """Stands for Spark, the shards of a fit and their fit."""

    def __init__(self, monkeypatch, *executors):
        self.executors, self.infos, self.unmixed = executors, shards_on("a"), None
        self.train, self.spark, self.holds, self.looked = self, None, [], 0
        self.turns = []
        monkeypatch.setattr(placement, "engine_of", lambda spark: self)
        monkeypatch.setattr(placement, "task_slots", lambda spark: len(self.executors))
        monkeypatch.setattr(placement, "locality_seconds", lambda spark: 10.0)
        self.placement = Placement(self)

    def addresses(self):
        return frozenset(("driver", *self.executors))

    def look(self):
        self.looked += 1
        if isinstance(self.turns[0], Exception):
            raise self.turns.pop(0)
        self.infos = shards_on(*self.turns.pop(0))

    def respool(self, hold):
        self.holds.append(hold)
        self.infos = shards_on(*self.turns.pop(0))

    def spread(self):
        self.holds = []
        self.placement.spread()
        return self.holds


def test_shards_that_lie_together_in_the_beginning_are_held_apart(monkeypatch):
    cluster = Cluster(monkeypatch, "a", "b", "c")
    cluster.infos, cluster.turns = shards_on(*"aaa"), ["abc"]
    assert cluster.spread() == [10.0]
    assert cluster.spread() == []
    assert cluster.looked == 0


def test_shards_are_spread_once_after_an_executor_has_joined(monkeypatch, caplog):
    cluster = Cluster(monkeypatch, "a", "b")
    cluster.infos = shards_on(*"aab")
    assert cluster.spread() == []
    cluster.executors, cluster.turns = ("a", "b", "c"), ["aab", "abc"]
    with caplog.at_level("INFO", "kspark"):
        assert cluster.spread() == [0.0]
    assert "2 shards are on one executor, and 3 executors have 1 slots each" in caplog.text
    assert cluster.spread() == []
    # Spark prefers where the rows are, so a second spooling holds the slots.
    cluster.executors, cluster.turns = ("a", "b", "x"), ["aab", "aab", "abx"]
    assert cluster.spread() == [0.0, 10.0]
    # It is not tried again before there are other executors.
    cluster.executors, cluster.turns = ("a", "b", "e"), ["aab", "aab", "aab"]
    assert cluster.spread() == [0.0, 10.0]
    assert cluster.spread() == []


def test_shards_that_stay_together_are_not_spooled_again_for_every_executor(monkeypatch):
    """Executors with 4, 1 and 1 slots and shards seem to have 2 slots each."""
    cluster = Cluster(monkeypatch, "a", "b", "c")
    cluster.infos, cluster.turns = shards_on(*"aaaabc"), ["aaaabc"]
    assert cluster.spread() == [10.0]
    cluster.executors = ("a", "b", "d")
    assert cluster.spread() == []
    assert cluster.looked == 0


def test_a_job_that_holds_slots_makes_room_first(monkeypatch):
    cluster, ended = Cluster(monkeypatch, "a", "b"), []
    cluster.infos, cluster.turns = shards_on(*"aa"), ["ab"]
    cluster.placement.spread(lambda: ended.append(list(cluster.holds)))
    assert ended == [[]]


def test_shards_that_cannot_be_looked_for_stay(monkeypatch):
    cluster = Cluster(monkeypatch, "a", "b")
    assert cluster.spread() == []
    cluster.executors, cluster.turns = ("a", "b", "c"), [JobLostError("gone")]
    assert cluster.spread() == []


@pytest.mark.parametrize("executors", [(), ("a",)])
def test_nothing_happens_without_a_second_executor(monkeypatch, executors):
    cluster = Cluster(monkeypatch, *executors)
    cluster.infos = shards_on(*"aaa")
    assert cluster.spread() == []


def test_mixed_rows_are_spread_with_the_shards_that_they_come_from(monkeypatch):
    cluster = Cluster(monkeypatch, "a", "b")
    cluster.unmixed, cluster.train = SimpleNamespace(shards=cluster), None
    cluster.infos, cluster.turns = shards_on(*"aa"), ["ab"]
    assert cluster.spread() == [10.0]


def test_shards_with_examples_have_moved_if_executor_or_folder_differ():
    assert moved_shards(shards_on(*"aab"), shards_on(*"aba")) == [1, 2]
    assert moved_shards(shards_on(*"ab"), shards_on(*"ab")) == []
