"""When executors sum groups of shards, and what the driver makes of the sums; without Spark."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kspark import optimizers
from kspark.cluster.spark_job import JobLostError
from kspark.errors import ClusterError, Failure, WorkerError
from kspark.job import collecting as shard_results
from kspark.job import groups, optimizer_state
from kspark.job.collecting import MAX_STRAYS
from kspark.job.fit import Fit
from kspark.job.groups import MIN_GROUPED_SHARDS, grouping_of
from kspark.job.optimizer_state import fetched_states, take_state
from kspark.optimizers import Average
from kspark.plan import TrainingPlan
from kspark.rounds import driver
from kspark.rounds.driver import grouping_of_round, run_grouped_round
from kspark.shards import ShardFacts
from kspark.weights import TRAINABLE, Weight, WeightSpec
from kspark.worker.groups import Grouping, GroupResult
from kspark.worker.tasks import MissingShard, ShardResult

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE),))
PAIR = Grouping(({0: 1}, {1: 3}))


def a_fit(counts, rule="average", max_failures=2):
    plan = TrainingPlan.create(mode="synchronous", frequency="epoch", max_failures=max_failures)
    aggregator = SimpleNamespace(optimizer=optimizers.get(rule))
    job = Fit(None, SimpleNamespace(weights=SPEC), plan, None, None, 0.0, aggregator, None)
    job.num_train = dict(enumerate(counts))
    return job


@pytest.fixture
def session(monkeypatch):
    """Stands for the kind of session: whether its engine groups results."""

    def make(grouped):
        monkeypatch.setattr(groups, "engine_of", lambda spark: SimpleNamespace(groups=grouped))

    return make


# -- when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "groups"), [([1] * 15, None), ([1] * 15 + [0] * 9, None), ([1] * 16, 4)]
)
def test_from_sixteen_shards_with_examples_on(session, counts, groups):
    session(grouped=True)
    assert MIN_GROUPED_SHARDS == 16
    for choose in (grouping_of, grouping_of_round):
        found = choose(a_fit(counts))
        assert (found and len(found.groups)) == groups


def test_sessions_without_a_shuffle_of_results_have_none(session):
    session(grouped=False)
    assert grouping_of(a_fit([1] * 40)) is None


class Largest(Average):
    """A rule of a user's own, which looks at all deltas."""

    def reduce(self, deltas, num_examples):
        return max(deltas, key=np.linalg.norm)


@pytest.mark.parametrize(
    ("rule", "sums"),
    [
        *[(name, True) for name in ("average", "adam", "elastic_average")],
        *[(name, False) for name in ("median", "trimmed_mean")],
        (Largest(), False),
    ],
)
def test_rules_that_look_at_all_deltas_get_them(session, rule, sums):
    session(grouped=True)
    job = a_fit([1] * 16, rule)
    assert (grouping_of_round(job) is not None) == sums
    assert grouping_of(job) is not None  # their replicas' state is a mean all the same


# -- what ------------------------------------------------------------------------------------------


def good(number, value, rows, state=None):
    part = ShardResult(
        number, rows, facts=ShardFacts("h", 1, number + 4, 0.5, rows, True, 0.0, 0, 0)
    )
    behind = rows if state else 0
    return GroupResult(number, (part,), np.full(2, value, "f4"), rows, state, behind)


def broken(number, part):
    return GroupResult(number, (part,))


def gone(shard, host="here"):
    return broken(shard, MissingShard(shard, host, "here"))


class Jobs:
    """Stands for Spark: answers each submission with the next of some outcomes."""

    def __init__(self, monkeypatch, *outcomes):
        self.outcomes, self.wanted, self.respooled = list(outcomes), [], 0
        monkeypatch.setattr(driver, "collect_groups", self.collect_groups)
        monkeypatch.setattr(optimizer_state, "collect_groups", self.collect_groups)
        monkeypatch.setattr(optimizer_state, "run", self.run)

    @property
    def submitted(self):
        return len(self.wanted)

    def collect_groups(self, job, grouping, task, description, wanted=None):
        self.wanted.append(wanted)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def run(self, spark, results, description, wanted=None):
        return self.collect_groups(None, None, results, description, wanted)

    def respool(self):
        self.respooled += 1

    def round(self, **more):
        job = a_fit([1, 3], **more)
        job.train = self
        return run_grouped_round(job, PAIR, "task", "what")


def test_what_groups_bring_is_unpacked(monkeypatch):
    """Not compressed, but perhaps without what did not change."""
    monkeypatch.setattr(TrainingPlan, "unpacked", lambda self, delta, spec: (delta + 1, spec))
    jobs = Jobs(monkeypatch, [good(0, 2.0, 1, ([], [])), good(1, 6.0, 3, ([], []))])
    vectors = [delta.vector for delta in jobs.round().deltas]
    spec = a_fit([1, 3]).spec.weights
    assert [(vector.tolist(), given) for vector, given in vectors] == [
        ([3, 3], spec),
        ([7, 7], spec),
    ]


def test_the_driver_merges_a_vector_per_group(monkeypatch):
    jobs = Jobs(monkeypatch, [good(0, 2.0, 1, ([], [])), good(1, 6.0, 3, ([], []))])
    brought = jobs.round()
    found = [(d.shard, d.vector.tolist(), d.num_examples) for d in brought.deltas]
    assert found == [(0, [2, 2], 1), (1, [6, 6], 3)]
    assert [r.shard for r in brought.results] == [0, 1]
    assert brought.num_steps == 5
    assert brought.states == []  # which come by themselves, see `take_state`


def test_groups_of_which_something_is_missing_train_again(monkeypatch):
    lost = JobLostError("an executor is gone")
    first, second = good(0, 2.0, 1), good(1, 6.0, 3)
    jobs = Jobs(monkeypatch, lost, [first, gone(1, "there")], lost, [gone(1)], [second])
    brought = jobs.round()
    assert [d.vector.tolist() for d in brought.deltas] == [[2, 2], [6, 6]]
    assert [r.shard for r in brought.results] == [0, 1]
    assert jobs.wanted == [[0, 1], [0, 1], [1], [1], [1]]
    assert jobs.respooled == 1


def test_tasks_that_never_meet_their_files_end(monkeypatch):
    jobs = Jobs(monkeypatch, [good(0, 1.0, 1), gone(1, "there")])
    with pytest.raises(ClusterError, match=r"shards \[1\] on other hosts"):
        jobs.round(max_failures=0)
    assert (jobs.submitted, jobs.respooled) == (MAX_STRAYS + 1, 0)


@pytest.mark.parametrize("outcome", [JobLostError("gone"), [gone(0)]])
def test_what_is_lost_too_often_is_an_error(monkeypatch, outcome):
    jobs = Jobs(monkeypatch, outcome)
    with pytest.raises(WorkerError):
        jobs.round(max_failures=1)
    assert jobs.submitted == 3


def test_a_failure_ends_it_at_once(monkeypatch):
    failure = Failure(1, "here", 0, "ValueError", "a mistake", "")
    jobs = Jobs(monkeypatch, [good(0, 1.0, 1), broken(1, failure)])
    with pytest.raises(WorkerError, match="Shard 1 failed on host here .*a mistake"):
        jobs.round()
    assert jobs.submitted == 1


# -- the replicas' state ---------------------------------------------------------------------------


class Model:
    """Stands for the driver's replica."""

    learning_rate = 0.5

    def set_optimizer_state(self, arrays):
        self.learning_rate = None
        self.optimizer = arrays

    def set_fixed(self, arrays):
        self.fixed = arrays


def states(*means):
    made = [([np.array([mean], "f4"), np.array(7 + i)], [np.array(i)]) for i, mean in means]
    return [good(i, 0.0, 4, state) for (i, _), state in zip(means, made, strict=True)]


@pytest.mark.parametrize("came_along", [True, False])
def test_the_drivers_model_gets_the_mean_of_the_groups(monkeypatch, session, came_along):
    session(grouped=True)
    found = states((0, 1.0), (1, 4.0))
    jobs = Jobs(monkeypatch, found)
    job = a_fit([1] * 16)
    job.train = jobs
    job.monitor = SimpleNamespace(replica=Model())
    brought = [(g.state, g.state_examples) for g in found] if came_along else []
    take_state(job, brought, 3)
    assert jobs.submitted == (0 if came_along else 1)
    replica = job.monitor.replica
    assert [a.tolist() for a in replica.optimizer] == [[2.5], 7]
    assert (replica.learning_rate, replica.fixed) == (0.5, [np.array(0)])


@pytest.mark.parametrize(
    ("outcome", "submitted", "told"),
    [
        (JobLostError("gone"), 4, "Some of the replicas' optimizer state is left out."),
        ([broken(0, ShardResult(0, 4))], 1, "No replica's optimizer state is left"),
    ],
)
def test_state_that_is_lost_is_told(monkeypatch, session, caplog, outcome, submitted, told):
    """A job that is lost is asked for again as often as those that train."""
    session(grouped=True)
    job = a_fit([1] * 16)
    job.train = jobs = Jobs(monkeypatch, outcome)
    take_state(job, [], 3)
    assert jobs.submitted == submitted
    assert told in caplog.text
    assert "No replica's optimizer state is left; the model keeps what it had" in caplog.text


def fetched(session, monkeypatch, *outcomes, grouped=True, late=()):
    """What is kept of the state that jobs bring, and the shards that were asked for."""
    session(grouped=grouped)
    jobs = Jobs(monkeypatch, *outcomes)
    handles = SimpleNamespace(mapPartitionsWithIndex=lambda task: task)
    job = a_fit([1] * 16)
    job.train = SimpleNamespace(handles=handles)
    job.under_way = lambda: frozenset(late)
    monkeypatch.setattr(shard_results, "BUSY_SECONDS", 0)
    job.busy = lambda: bool(late) and jobs.submitted < 2 * MAX_STRAYS
    return [examples for _, examples in fetched_states(job, 3)], jobs.wanted


ALL = list(range(16))


def stray(shard):
    return MissingShard(shard, "there", "here")


def kept(shard):
    return ShardResult(shard, 1, state=([], []))


@pytest.mark.parametrize("grouped", [True, False])
def test_tasks_that_ran_beside_their_state_are_asked_for_again(
    monkeypatch, session, caplog, grouped
):
    """By groups, which come whole; or by shards."""
    whole, other = states((0, 1.0), (1, 4.0))
    part = replace(whole, parts=(*whole.parts, stray(1)), state_examples=2)
    if not grouped:
        whole, other, part = kept(0), kept(1), stray(0)
    found, wanted = fetched(session, monkeypatch, [part, other], [part], [whole], grouped=grouped)
    assert wanted == [[0, 1, 2, 3] if grouped else ALL, [0], [0]]
    assert found == ([4, 4] if grouped else [1, 1])
    assert not caplog.text


def test_what_a_job_brings_unasked_does_not_count(monkeypatch, session):
    """Spark Connect brings all shards each time, and one that was there may stray then."""
    jobs = [kept(0), stray(1)], [stray(0), kept(1)]
    found, wanted = fetched(session, monkeypatch, *jobs, grouped=False)
    assert (found, wanted) == ([1, 1], [ALL, [1]])


def test_a_job_that_is_lost_is_asked_for_again(monkeypatch, session):
    jobs = [kept(0), stray(1)], JobLostError("gone"), [kept(1)]
    found, wanted = fetched(session, monkeypatch, *jobs, grouped=False)
    assert (found, wanted) == ([1, 1], [ALL, [1], [1]])


def test_tasks_that_run_beside_their_state_for_ever_are_told(monkeypatch, session, caplog):
    jobs = [kept(0), stray(1)], [stray(1)]
    found, wanted = fetched(session, monkeypatch, *jobs, grouped=False)
    assert (found, wanted) == ([1], [ALL] + MAX_STRAYS * [[1]])
    assert "optimizer state is left out. Spark ran the tasks of shards [1]" in caplog.text


def test_late_shards_have_no_state_and_keep_others_from_theirs(monkeypatch, session, caplog):
    """While they hold the slots of a host, a shard that has landed there is waited for."""
    jobs = [[kept(0), stray(1)], *(2 * MAX_STRAYS - 1) * [[stray(1)]], [kept(1)]]
    found, wanted = fetched(session, monkeypatch, *jobs, grouped=False, late=[2, 5])
    assert wanted[0] == [shard for shard in ALL if shard not in (2, 5)]
    assert (found, len(wanted)) == ([1, 1], 2 * MAX_STRAYS + 1)
    assert "left out" not in caplog.text


def test_late_shards_are_in_no_group(monkeypatch, session):
    session(grouped=True)
    assert grouping_of(a_fit([1] * 17), without={3, 16}) is None
    grouping = grouping_of(a_fit([1] * 19), without={3, 16})
    assert sorted(grouping.number) == [s for s in range(19) if s not in (3, 16)]
    asked = []

    def collect_groups(job, grouping, task, what, wanted):
        asked.append(grouping)
        return states((0, 1.0))

    monkeypatch.setattr(optimizer_state, "collect_groups", collect_groups)
    job = a_fit([1] * 19)
    job.train, job.under_way = None, lambda: frozenset({3, 16})
    assert len(fetched_states(job, 3)) == 1
    assert asked == [grouping]


def test_shards_without_examples_have_no_state_to_miss(monkeypatch, session):
    _, wanted = fetched(session, monkeypatch, [stray(16)], grouped=False)
    assert wanted == [ALL]
