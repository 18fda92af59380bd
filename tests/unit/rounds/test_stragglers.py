"""In which round each shard is merged if rounds have a timeout; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kspark.cluster.spark_job import JobLostError
from kspark.errors import ClusterError, Failure, WorkerError
from kspark.job.collecting import MAX_STRAYS
from kspark.job.fit import Fit
from kspark.plan import TrainingPlan
from kspark.rounds import shard_jobs, stragglers
from kspark.rounds.shard_jobs import ShardJobs
from kspark.rounds.stragglers import train_rounds_with_timeout
from kspark.shards import ShardFacts
from kspark.weights import TRAINABLE, Weight, WeightSpec
from kspark.worker.tasks import GONE, MissingShard, ShardResult

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE),))
EXAMPLES = {0: 1, 1: 2, 2: 3}


class Vector:
    """Stands for broadcast weights."""

    def __init__(self, value):
        self.value, self.destroyed = value, 0

    def destroy(self):
        self.destroyed += 1


class Cluster:
    """Stands for Spark: a script has the outcomes of the jobs of each shard.

    A job whose outcome is an integer returns a result in that epoch's round. With `LAST`, it
    returns a result when the fit waits for all shards.
    """

    LAST = 99

    def __init__(self, monkeypatch, script, epochs=3, **plan):
        self.script = {shard: list(outcomes) for shard, outcomes in script.items()}
        self.submitted, self.vectors, self.jobs, self.respooled = [], [], [], 0
        self.epoch, self.monkeypatch = 0, monkeypatch
        made = TrainingPlan.create(
            mode="synchronous", frequency="epoch", epochs=epochs, straggler_timeout=1e-9, **plan
        )
        self.merged, self.set_to = [], []
        self.monitor = SimpleNamespace(learning_rate=0.5)
        self.monitor.replica = SimpleNamespace(set_vector=lambda v: self.set_to.append(v.copy()))
        self.aggregator = SimpleNamespace(weights=np.zeros(2, "f4"), merge=self.merge)
        spec = SimpleNamespace(weights=SPEC)
        self.fit = Fit(None, spec, made, None, None, 0.0, self.aggregator, self.monitor)
        self.fit.num_train, self.fit.train = EXAMPLES, self
        self.handles = self
        monkeypatch.setattr(shard_jobs, "SparkJob", self.start)
        monkeypatch.setattr(shard_jobs, "engine_of", lambda _: self)
        monkeypatch.setattr(shard_jobs, "ship", lambda function, task, shared: (task, shared))
        monkeypatch.setattr(shard_jobs, "in_records", lambda task: task)
        monkeypatch.setattr(Fit, "task", lambda fit: None)
        monkeypatch.setattr(stragglers, "open_epoch", self.open_epoch)
        monkeypatch.setattr("kspark.rounds.driver.close_epoch", self.close_epoch)
        monkeypatch.setattr(stragglers, "take_state", self.take_state)
        self.stop_after, self.states, self.examples = None, None, []

    # what the driver calls

    def share(self, weights):
        self.vectors.append(Vector(weights))
        return self.vectors[-1]

    def mapPartitionsWithIndex(self, task):
        return task

    def respool(self, hold=0.0, delete=True):
        self.respooled += 1
        self.handles = SimpleNamespace(mapPartitionsWithIndex=lambda task: task)

    def merge(self, deltas, num_steps):
        self.merged.append({d.shard: int(d.vector[0]) for d in deltas})
        self.aggregator.weights += 1

    def open_epoch(self, fit, epoch):
        self.epoch = epoch

    def close_epoch(self, fit, epoch, metrics, num_examples, counters, states):
        self.examples.append(num_examples)
        return epoch == self.stop_after or fit.last_epoch(epoch)

    def take_state(self, fit, states, epoch):
        self.states = (states, epoch)

    # what stands for its jobs

    def start(self, spark, results, what, partitions, bell):
        (shard,), (task, (_, vector)) = partitions, results
        running = Running(self, shard, task, vector, self.script[shard].pop(0), bell)
        self.submitted.append((shard, task.epoch))
        self.jobs.append(running)
        return SimpleNamespace(start=lambda: running)

    def train(self):
        train_rounds_with_timeout(self.fit)
        assert self.fit.states.trained == dict(self.submitted)
        assert [vector.destroyed for vector in self.vectors] == [1] * len(self.vectors)
        assert not self.fit.busy()
        return list(self.fit.epochs)


class Running:
    """A running job, which ends in the round of its outcome."""

    def __init__(self, cluster, shard, task, vector, outcome, bell):
        self.cluster, self.shard, self.task, self.outcome = cluster, shard, task, outcome
        self.vector, self.cancelled, self.finished = vector, 0, self
        bell.set()

    def is_set(self):
        if not isinstance(self.outcome, int):
            return True
        last = self.cluster.epoch == self.cluster.fit.plan.epochs - 1
        over = self.cluster.epoch == self.cluster.stop_after < len(self.cluster.merged)
        return self.outcome <= self.cluster.epoch or (self.outcome == Cluster.LAST and last) or over

    def result(self):
        assert not self.vector.destroyed
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if not isinstance(self.outcome, int):
            return [self.outcome]
        # The delta contains the number of merges before it started.
        delta = np.array([10 * self.task.epoch + self.vector.value[0], 0], "f4")
        state = ([], [np.array(self.shard)]) if self.task.wants_state else None
        examples = EXAMPLES[self.shard]
        facts = ShardFacts("h", 1, self.shard + 1, 0.5, examples, True, 0.0, 0, 0)
        return [ShardResult(self.shard, examples, delta, [], facts, state=state)]

    def cancel(self):
        self.cancelled += 1


ON_TIME = {shard: [0, 1, 2] for shard in EXAMPLES}


def test_without_late_shards_rounds_are_those_of_the_default_mode(monkeypatch):
    cluster = Cluster(monkeypatch, ON_TIME)
    epochs = cluster.train()
    assert cluster.merged == [dict.fromkeys(EXAMPLES, 11 * epoch) for epoch in range(3)]
    assert [(e.stragglers, e.late, e.merges) for e in epochs] == [((), (), 1)] * 3
    (states, epoch) = cluster.states
    assert ([n for _, n in states], epoch) == ([1, 2, 3], 2)


def test_jobs_get_the_step_counters_that_a_callback_sets(monkeypatch):
    cluster = Cluster(monkeypatch, ON_TIME)
    monkeypatch.setattr(
        stragglers,
        "open_epoch",
        lambda fit, epoch: (cluster.open_epoch(fit, epoch), setattr(fit, "new_counters", (epoch,))),
    )
    cluster.train()
    assert [job.task.counters for job in cluster.jobs] == [
        (job.task.epoch,) for job in cluster.jobs
    ]


def test_a_late_shard_is_merged_in_the_round_in_which_it_arrives(monkeypatch, caplog):
    """It trains epoch 0 from the first weights, and does not start epoch 1."""
    cluster = Cluster(monkeypatch, {0: [0, 1, 2], 1: [1, 2], 2: [0, 1, 2]})
    with caplog.at_level("INFO", "kspark"):
        epochs = cluster.train()
    assert cluster.merged == [{0: 0, 2: 0}, {0: 11, 1: 0, 2: 11}, {0: 22, 1: 22, 2: 22}]
    assert [(e.stragglers, e.late) for e in epochs] == [((1,), ()), ((), (1,)), ((), ())]
    assert [w["rounds_late"] for w in epochs[1].workers] == [0, 1, 0]
    assert cluster.examples == [4, 6, 6]
    assert "Epoch 1 is merged without shards [1]" in caplog.text
    assert "Epoch 2 merges deltas of earlier rounds from shards [1]" in caplog.text


def test_the_last_round_waits_for_late_shards(monkeypatch):
    cluster = Cluster(monkeypatch, {0: [0, 1, 2], 1: [Cluster.LAST], 2: [0, 1, 2]})
    epochs = cluster.train()
    assert cluster.merged == [{0: 0, 2: 0}, {0: 11, 2: 11}, {0: 22, 1: 0, 2: 22}]
    assert [e.stragglers for e in epochs] == [(1,), (1,), ()]
    assert epochs[2].late == (1,)
    assert [w["rounds_late"] for w in epochs[2].workers] == [0, 2, 0]
    assert [n for _, n in cluster.states[0]] == [1, 3]  # of those that trained the last epoch


def test_a_fit_that_ends_early_merges_late_shards(monkeypatch):
    cluster = Cluster(monkeypatch, {0: [0], 1: [Cluster.LAST], 2: [0]})
    cluster.stop_after = 0
    (epoch,) = cluster.train()
    assert cluster.merged == [{0: 0, 2: 0}, {1: 0}]
    assert (epoch.stragglers, epoch.late, epoch.merges) == ((1,), (1,), 2)
    assert [w["shard"] for w in epoch.workers] == [0, 2, 1]
    assert epoch.workers[-1]["rounds_late"] == 1
    assert [v.tolist() for v in cluster.set_to] == [[2, 2]]  # the model has the last merge, too
    assert cluster.states == ([], 0)


def test_a_lost_job_starts_again_from_the_weights_it_began_with(monkeypatch):
    lost = JobLostError("gone")
    cluster = Cluster(monkeypatch, {0: [lost, 0, 1, 2], 1: [1, 2], 2: [0, lost, lost, 1]})
    cluster.train()
    assert cluster.merged == [{0: 0, 2: 0}, {0: 11, 1: 0}, {0: 22, 1: 22, 2: 11}]
    assert [epoch for shard, epoch in cluster.submitted if shard == 2] == [0, 1, 1, 1]


def test_a_job_that_is_lost_too_often_raises_an_error(monkeypatch):
    cluster = Cluster(
        monkeypatch, {**ON_TIME, 1: [JobLostError("gone")] * 9, 2: [9]}, max_failures=1
    )
    with pytest.raises(WorkerError):
        cluster.train()
    assert len([s for s, _ in cluster.submitted if s == 1]) == 3


def test_a_failure_cancels_all_jobs(monkeypatch):
    failure = Failure(1, "here", 0, "ValueError", "a mistake", "")
    cluster = Cluster(monkeypatch, {**ON_TIME, 1: [failure], 2: [9]})
    with pytest.raises(WorkerError, match="a mistake"):
        cluster.train()
    assert [job.cancelled for job in cluster.jobs if job.shard == 2] == [1]
    assert [vector.destroyed for vector in cluster.vectors] == [1]


def test_an_interrupt_cancels_all_jobs(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    cluster = Cluster(monkeypatch, {**ON_TIME, 2: [9]})
    monkeypatch.setattr("kspark.rounds.driver.close_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cluster.train()
    assert [job.cancelled for job in cluster.jobs if job.shard == 2] == [1]
    assert [vector.destroyed for vector in cluster.vectors] == [1]


def test_lost_files_are_spooled_again_once_for_all_shards(monkeypatch):
    gone = [MissingShard(shard, "here", "here", GONE) for shard in (0, 1)]
    cluster = Cluster(monkeypatch, {0: [gone[0], 0, 1, 2], 1: [gone[1], 0, 1, 2], 2: [0, 1, 2]})
    cluster.train()
    assert cluster.respooled == 1
    assert cluster.merged[0] == {0: 0, 1: 0, 2: 0}


def test_a_fit_fails_if_tasks_keep_running_on_other_hosts(monkeypatch):
    strayed = [MissingShard(1, "there", "here")] * 99
    cluster = Cluster(monkeypatch, {**ON_TIME, 1: strayed})
    with pytest.raises(ClusterError, match=r"shards \[1\] on executors without their files"):
        cluster.train()
    assert len([s for s, _ in cluster.submitted if s == 1]) == MAX_STRAYS + 1


def test_an_error_in_cancelling_a_job_does_not_keep_other_jobs_running(monkeypatch):
    cluster = Cluster(monkeypatch, {shard: [9] for shard in EXAMPLES})

    def cancel(running):
        running.cancelled += 1
        raise OSError(f"shard {running.shard}")

    monkeypatch.setattr(Running, "cancel", cancel)
    with pytest.raises(OSError, match="shard"), ShardJobs(cluster.fit) as jobs:
        jobs.start(EXAMPLES, 0)
    assert [running.cancelled for running in cluster.jobs] == [1] * len(EXAMPLES)
    assert [vector.destroyed for vector in cluster.vectors] == [1]


def test_a_fit_is_busy_while_a_job_runs(monkeypatch):
    """The job may occupy a slot on the host with the files of another shard."""
    cluster = Cluster(monkeypatch, {})
    with ShardJobs(cluster.fit) as jobs:
        cluster.script = {0: [0], 1: [9]}
        jobs.start([0, 1], 0)
        assert [job.finished.is_set() for job in cluster.jobs] == [True, False]
        assert cluster.fit.busy()
        assert jobs.shards == {0, 1}
    assert not cluster.fit.busy()
    assert jobs.shards == frozenset()
