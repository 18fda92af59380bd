"""How the driver collects the results of a round; without Spark."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from kspark import optimizers
from kspark.cluster.spark_job import JobLostError
from kspark.errors import ClusterError, Failure, WorkerError
from kspark.job import groups
from kspark.job.collecting import MAX_STRAYS, STRAYS_PER_MOVE
from kspark.job.fit import Fit
from kspark.job.groups import delta_grouping_of, grouping_of
from kspark.optimizers import Average
from kspark.plan import TrainingPlan
from kspark.rounds import driver
from kspark.rounds.driver import Round, run_grouped_round
from kspark.shards import ShardFacts
from kspark.weights import TRAINABLE, Weight, WeightSpec
from kspark.worker.groups import Grouping, GroupResult
from kspark.worker.tasks import AWAY, GONE, MissingShard, ShardResult

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE),))
PAIR = Grouping(({0: 1}, {1: 3}))


def a_fit(counts, rule="average", max_failures=2):
    plan = TrainingPlan.create(mode="synchronous", frequency="epoch", max_failures=max_failures)
    aggregator = SimpleNamespace(optimizer=optimizers.get(rule))
    fit = Fit(None, SimpleNamespace(weights=SPEC), plan, None, None, 0.0, aggregator, None)
    fit.num_train = dict(enumerate(counts))
    return fit


@pytest.fixture
def session(monkeypatch):
    """Stands for the kind of session: whether its engine groups results."""

    def make(grouped):
        monkeypatch.setattr(groups, "engine_of", lambda spark: SimpleNamespace(groups=grouped))

    return make


# -- when executors average groups -----------------------------------------------------------------


@pytest.mark.parametrize(("counts", "groups"), [([1] * 15, None), ([1] * 16, 4)])
def test_from_sixteen_shards_on_a_round_has_groups(session, counts, groups):
    session(grouped=True)
    found = delta_grouping_of(a_fit(counts))
    assert (found and len(found.groups)) == groups


class Largest(Average):
    """A custom rule, which needs all deltas."""

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
    fit = a_fit([1] * 16, rule)
    assert (delta_grouping_of(fit) is not None) == sums
    assert grouping_of(fit, 8) is not None  # their replicas' state is a mean all the same


# -- what is merged --------------------------------------------------------------------------------


def good(number, value, rows, state=None):
    part = ShardResult(
        number, rows, facts=ShardFacts("h", 1, number + 4, 0.5, rows, True, 0.0, 0, 0)
    )
    behind = rows if state else 0
    return GroupResult(number, (part,), np.full(2, value, "f4"), rows, state, behind)


def broken(number, part):
    return GroupResult(number, (part,))


def gone(shard, host="here"):
    return broken(shard, MissingShard(shard, host, "here", AWAY if host != "here" else GONE))


class Jobs:
    """Stands for Spark: answers each submission with the next of some outcomes."""

    def __init__(self, monkeypatch, *outcomes):
        self.outcomes, self.wanted, self.respooled = list(outcomes), [], 0
        monkeypatch.setattr(driver, "collect_groups", self.collect_groups)

    @property
    def submitted(self):
        return len(self.wanted)

    def collect_groups(self, fit, grouping, task, description, wanted=None, watch=None):
        self.wanted.append(wanted)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def respool(self, hold=0.0, delete=True):
        self.respooled += 1

    def round(self, **more):
        fit = a_fit([1, 3], **more)
        fit.train = self
        return run_grouped_round(fit, PAIR, "task", "what")


def test_the_deltas_of_groups_are_unpacked(monkeypatch):
    """Means are not compressed, but blocks without changes may be left out."""
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
    result = jobs.round()
    found = [(d.shard, d.vector.tolist(), d.num_examples) for d in result.deltas]
    assert found == [(0, [2, 2], 1), (1, [6, 6], 3)]
    assert [s.shard for s in result.shards] == [0, 1]
    assert result.num_steps == 5
    assert result.states == []  # which are fetched, see `take_state`


@pytest.mark.parametrize(
    ("late", "expected"), [((None, None), (4,)), ((0, 0), (4,)), ((2, 0), (5,)), ((2, 1), ())]
)
def test_the_step_counters_of_a_round_are_those_of_the_first_shard_that_is_not_late(late, expected):
    facts = [ShardFacts("h", 1, 2, 0.5, 8, True, 0.0, 0, 0, rounds) for rounds in late]
    shards = [ShardResult(i, 8, facts=f, counters=(4 + i,)) for i, f in enumerate(facts)]
    assert Round(shards, [], []).counters == expected


def test_incomplete_groups_train_again(monkeypatch):
    lost = JobLostError("an executor is gone")
    first, second = good(0, 2.0, 1), good(1, 6.0, 3)
    jobs = Jobs(monkeypatch, lost, [first, gone(1, "there")], lost, [gone(1)], [second])
    result = jobs.round()
    assert [d.vector.tolist() for d in result.deltas] == [[2, 2], [6, 6]]
    assert [s.shard for s in result.shards] == [0, 1]
    assert jobs.wanted == [[0, 1], [0, 1], [1], [1], [1]]
    assert jobs.respooled == 1


def test_a_round_fails_if_its_tasks_keep_running_on_other_hosts(monkeypatch):
    jobs = Jobs(monkeypatch, [good(0, 1.0, 1), gone(1, "there")])
    with pytest.raises(ClusterError, match=r"shards \[1\] on executors without their files"):
        jobs.round(max_failures=0)
    # The first submission has completed a group.
    assert (jobs.submitted, jobs.respooled) == (MAX_STRAYS + 2, MAX_STRAYS // STRAYS_PER_MOVE)


@pytest.mark.parametrize("outcome", [JobLostError("gone"), [gone(0)]])
def test_a_job_that_is_lost_too_often_raises_an_error(monkeypatch, outcome):
    jobs = Jobs(monkeypatch, outcome)
    with pytest.raises(WorkerError):
        jobs.round(max_failures=1)
    assert jobs.submitted == 3


def test_a_failure_is_raised_at_once(monkeypatch):
    failure = Failure(1, "here", 0, "ValueError", "a mistake", "")
    jobs = Jobs(monkeypatch, [good(0, 1.0, 1), broken(1, failure)])
    with pytest.raises(WorkerError, match="Shard 1 failed on host here .*a mistake"):
        jobs.round()
    assert jobs.submitted == 1


def test_shards_are_spread_in_the_beginning_and_before_all_epochs_but_the_last(monkeypatch):
    plan = TrainingPlan.create(mode="synchronous", frequency="epoch", epochs=4)
    fit, spread, end = Fit(None, None, plan, None, None, 0.0, None, None), [], object()
    fit.road, trained = "rounds", []
    monkeypatch.setattr(driver, "Placement", lambda fit: SimpleNamespace(spread=note))
    monkeypatch.setattr(driver, "long_jobs", lambda fit: nullcontext(SimpleNamespace(end=end)))
    monkeypatch.setattr(driver, "run_round_live", lambda fit, epoch, jobs: Round([], [], []))
    for name in ("mix_rows", "open_epoch", "merge_deltas", "take_state"):
        monkeypatch.setattr(driver, name, lambda *call: None)
    monkeypatch.setattr(driver, "finish_round", lambda fit, epoch, result: trained.append(epoch))

    def note(*make_room):
        spread.append((len(trained), make_room))

    driver.train_rounds(fit)
    assert spread == [(0, ()), (0, (end,)), (1, (end,)), (2, (end,))]
