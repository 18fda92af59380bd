"""Which states are fetched for the driver's model, and their mean; without Spark."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kspark import optimizers
from kspark.cluster import records
from kspark.cluster.spark_job import JobLostError
from kspark.job import collecting, groups, optimizer_state
from kspark.job.collecting import MAX_STRAYS
from kspark.job.fit import Fit
from kspark.job.groups import grouping_of
from kspark.job.optimizer_state import fetched_states, settled_model, take_state
from kspark.plan import TrainingPlan
from kspark.shards import ShardFacts
from kspark.weights import TRAINABLE, Weight, WeightSpec
from kspark.worker.groups import GroupResult
from kspark.worker.tasks import MissingShard, ShardResult

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE),))

STATE = SimpleNamespace(state_nbytes=8)
"""Stands for the driver's replica, whose state is fetched."""


def a_fit(counts, rule="average", max_failures=2):
    plan = TrainingPlan.create(mode="synchronous", frequency="epoch", max_failures=max_failures)
    aggregator = SimpleNamespace(optimizer=optimizers.get(rule))
    fit = Fit(None, SimpleNamespace(weights=SPEC), plan, None, None, 0.0, aggregator, None)
    fit.num_train = dict(enumerate(counts))
    fit.monitor = SimpleNamespace(replica=STATE)
    return fit


@pytest.fixture
def session(monkeypatch):
    """Stands for the kind of session: whether its engine groups results."""

    def make(grouped):
        monkeypatch.setattr(groups, "engine_of", lambda spark: SimpleNamespace(groups=grouped))

    return make


def good(number, value, rows, state=None):
    part = ShardResult(
        number, rows, facts=ShardFacts("h", 1, number + 4, 0.5, rows, True, 0.0, 0, 0)
    )
    behind = rows if state else 0
    return GroupResult(number, (part,), np.full(2, value, "f4"), rows, state, behind)


def broken(number, part):
    return GroupResult(number, (part,))


class Jobs:
    """Stands for Spark: answers each submission with the next of some outcomes."""

    def __init__(self, monkeypatch, *outcomes):
        self.outcomes, self.groupings, self.wanted = list(outcomes), [], []
        monkeypatch.setattr(optimizer_state, "collect_groups", self.collect_groups)
        monkeypatch.setattr(optimizer_state, "run", self.run)

    @property
    def submitted(self):
        return len(self.wanted)

    def collect_groups(self, fit, grouping, task, description, wanted=None, watch=None):
        self.groupings.append(grouping)
        self.wanted.append(wanted)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def run(self, spark, results, description, wanted=None, watch=None):
        return self.collect_groups(None, None, results, description, wanted)


class Model:
    """Stands for the driver's replica."""

    learning_rate = 0.5
    counters = (7,)
    state_nbytes = 8

    def set_optimizer_state(self, arrays):
        self.learning_rate = None
        self.optimizer = arrays

    def set_fixed(self, arrays):
        self.fixed = arrays


def states(*means):
    made = [([np.array([mean], "f4"), np.array(7 + i)], [np.array(i)]) for i, mean in means]
    return [good(i, 0.0, 4, state) for (i, _), state in zip(means, made, strict=True)]


@pytest.mark.parametrize("came_with_results", [True, False])
def test_the_drivers_model_gets_the_mean_of_the_groups(monkeypatch, session, came_with_results):
    session(grouped=True)
    found = states((0, 1.0), (1, 4.0))
    jobs = Jobs(monkeypatch, found)
    fit = a_fit([1] * 16)
    fit.train = jobs
    fit.monitor = SimpleNamespace(replica=Model())
    returned = [(g.state, g.state_examples) for g in found] if came_with_results else []
    take_state(fit, returned, 3)
    assert jobs.submitted == (0 if came_with_results else 1)
    replica = fit.monitor.replica
    assert [a.tolist() for a in replica.optimizer] == [[2.5], 7]
    assert (replica.learning_rate, replica.fixed) == (0.5, [np.array(0)])


@pytest.mark.parametrize(
    ("outcome", "submitted", "message"),
    [
        (JobLostError("gone"), 4, "The optimizer states of some replicas could not be fetched:"),
        ([broken(0, ShardResult(0, 4))], 1, "The optimizer state of no replica could be fetched."),
    ],
)
def test_lost_state_is_logged(monkeypatch, session, caplog, outcome, submitted, message):
    """A lost job is submitted again as often as one that trains."""
    session(grouped=True)
    fit = a_fit([1] * 16)
    fit.train = jobs = Jobs(monkeypatch, outcome)
    take_state(fit, [], 3)
    assert jobs.submitted == submitted
    assert message in caplog.text
    assert (
        "The optimizer state of no replica could be fetched. The model keeps its own."
        in caplog.text
    )


class Counted(Model):
    """Notes to which counters it is set back."""

    counters = (3,)
    withdrawn = ()

    def withdraw_steps(self, counters):
        self.withdrawn = counters


def a_counted_fit():
    fit = a_fit([1] * 16)
    fit.monitor = SimpleNamespace(replica=Counted(), left=[])
    fit.monitor.leave_epoch = lambda: fit.monitor.left.append(True)
    return fit, fit.monitor.replica


def test_a_fit_that_fails_withdraws_the_steps_since_its_state_was_taken(monkeypatch, session):
    """Adam corrects the bias of its moments by the counter, which therefore belongs to them."""
    session(grouped=True)
    fit, replica = a_counted_fit()

    def interrupted(steps, state=()):
        with settled_model(fit):
            if state:
                take_state(fit, state, 3)
            replica.counters = (steps,)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(12)
    assert replica.withdrawn == (3,)
    replica.counters = (9,)
    with pytest.raises(KeyboardInterrupt):
        interrupted(12, [(([np.array([1.0]), np.array(9)], []), 1)])
    assert replica.withdrawn == (9,)
    assert len(fit.monitor.left) == 2


def test_a_fit_that_ends_keeps_its_steps(monkeypatch, session):
    fit, replica = a_counted_fit()
    with settled_model(fit):
        replica.counters = (9,)
    assert (replica.counters, replica.withdrawn, fit.monitor.left) == ((9,), (), [])


def test_if_no_state_is_left_the_steps_are_withdrawn(monkeypatch, session):
    session(grouped=True)
    fit, replica = a_counted_fit()
    fit.train = Jobs(monkeypatch, [broken(0, ShardResult(0, 4))])
    with settled_model(fit):
        take_state(fit, [], 3)
    assert replica.withdrawn == (3,)


def fetched(session, monkeypatch, *outcomes, grouped=True, late=()):
    """Return the examples behind each fetched state, and the shards of each submission."""
    session(grouped=grouped)
    jobs = Jobs(monkeypatch, *outcomes)
    handles = SimpleNamespace(mapPartitionsWithIndex=lambda task: task)
    fit = a_fit([1] * 16)
    fit.train = SimpleNamespace(handles=handles)
    fit.late_shards = lambda: frozenset(late)
    monkeypatch.setattr(collecting, "BUSY_SECONDS", 0)
    fit.busy = lambda: bool(late) and jobs.submitted < 2 * MAX_STRAYS
    return [examples for _, examples in fetched_states(fit, 3)], jobs.wanted


ALL = list(range(16))


def stray(shard):
    return MissingShard(shard, "there", "here")


def kept(shard):
    return ShardResult(shard, 1, state=([], []))


@pytest.mark.parametrize("grouped", [True, False])
def test_tasks_that_ran_on_other_hosts_are_submitted_again(monkeypatch, session, caplog, grouped):
    """Groups are fetched as a whole, shards one by one."""
    whole, other = states((0, 1.0), (1, 4.0))
    part = replace(whole, parts=(*whole.parts, stray(1)), state_examples=2)
    if not grouped:
        whole, other, part = kept(0), kept(1), stray(0)
    found, wanted = fetched(session, monkeypatch, [part, other], [part], [whole], grouped=grouped)
    assert wanted == [[0, 1, 2, 3] if grouped else ALL, [0], [0]]
    assert found == ([4, 4] if grouped else [1, 1])
    assert not caplog.text


def test_results_that_were_not_requested_are_ignored(monkeypatch, session):
    """Spark Connect runs all shards each time, and tasks may run on other hosts then."""
    jobs = [kept(0), stray(1)], [stray(0), kept(1)]
    found, wanted = fetched(session, monkeypatch, *jobs, grouped=False)
    assert (found, wanted) == ([1, 1], [ALL, [1]])


def test_a_lost_job_is_submitted_again(monkeypatch, session):
    jobs = [kept(0), stray(1)], JobLostError("gone"), [kept(1)]
    found, wanted = fetched(session, monkeypatch, *jobs, grouped=False)
    assert (found, wanted) == ([1, 1], [ALL, [1], [1]])


def test_state_is_left_out_if_tasks_keep_running_on_other_hosts(monkeypatch, session, caplog):
    jobs = [kept(0), stray(1)], [stray(1)]
    found, wanted = fetched(session, monkeypatch, *jobs, grouped=False)
    assert (found, wanted) == ([1], [ALL] + MAX_STRAYS * [[1]])
    assert "could not be fetched: Spark ran the tasks of shards [1]" in caplog.text


def test_late_shards_are_left_out_and_their_slots_are_waited_for(monkeypatch, session, caplog):
    """While they occupy the slots of a host, shards with files on that host are waited for."""
    jobs = [[kept(0), stray(1)], *(2 * MAX_STRAYS - 1) * [[stray(1)]], [kept(1)]]
    found, wanted = fetched(session, monkeypatch, *jobs, grouped=False, late=[2, 5])
    assert wanted[0] == [shard for shard in ALL if shard not in (2, 5)]
    assert (found, len(wanted)) == ([1, 1], 2 * MAX_STRAYS + 1)
    assert "left out" not in caplog.text


def test_late_shards_are_in_no_group_whose_state_is_fetched(monkeypatch, session):
    session(grouped=True)
    jobs = Jobs(monkeypatch, states((0, 1.0)))
    fit = a_fit([1] * 19)
    fit.train, fit.late_shards = None, lambda: frozenset({3, 16})
    assert len(fetched_states(fit, 3)) == 1
    assert jobs.groupings == [grouping_of(fit, 8, without={3, 16})]


@pytest.mark.parametrize(("nbytes", "wanted"), [(1000, range(4)), (1001, range(16))])
def test_states_that_are_larger_than_a_record_are_fetched_by_shard(
    monkeypatch, session, nbytes, wanted
):
    monkeypatch.setattr(records, "LARGEST_RECORD", 1000)
    monkeypatch.setattr(STATE, "state_nbytes", nbytes)
    found = states((0, 1.0)) if nbytes == 1000 else [kept(0)]
    _, submitted = fetched(session, monkeypatch, found)
    assert submitted == [list(wanted)]


def test_only_shards_with_examples_are_fetched(monkeypatch, session):
    _, wanted = fetched(session, monkeypatch, [stray(16)], grouped=False)
    assert wanted == [ALL]
