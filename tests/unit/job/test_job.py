"""What the driver decides between jobs; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.cluster.spark_job import JobLostError
from kspark.errors import ClusterError
from kspark.job import spooling
from kspark.job.collecting import ShardsMissing
from kspark.job.epochs import note_epoch
from kspark.job.preparing import divide
from kspark.job.report import EpochFacts, FitReport
from kspark.job.spooling import CLEAN_UP_SECONDS, SpooledExamples
from kspark.live import driver as live
from kspark.live.coordinator import Coordinator, ShardPlan
from kspark.live.driver import LiveFit, shared_weights
from kspark.optimizers import Downpour
from kspark.plan import TrainingPlan
from kspark.shards import LabelStats, ShardHandle, StoredArray, Usage
from kspark.spark_model.training import Outcome, train
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, Whole
from kspark.worker.tasks import ShardResult

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE), Weight("m", (1,), "float32", STATE)))


def handle(index, rows):
    return ShardHandle(index, rows, f"/nowhere/{index}", "host", 0).to_json()


class SpooledTwice:
    """Stands for `Examples` and the RDD they become: gives other handles every time."""

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
        return task.target.rpartition(":")[2]


@pytest.fixture
def spooled(monkeypatch):
    """Spool with handles of so many rows, again with others."""

    def make(*turns, failing=False):
        examples = SpooledTwice(*turns)

        def run(spark, rdd, description, partitions=None, timeout=None):
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


def test_input_that_gives_other_rows_the_second_time(spooled):
    spool, examples = spooled([3, 4], [4, 3])
    with pytest.raises(ValueError, match="other numbers of rows.*persist it"), spool:
        spool.respool()
    assert examples.closed


@pytest.mark.parametrize("failing", [False, True])
def test_what_cannot_be_spooled_is_deleted_everywhere_and_closed(spooled, failing, caplog):
    spool, examples = spooled(failing=failing)
    with pytest.raises(IndexError):
        spool.__enter__()
    assert examples.cleaned == [("clean_host", CLEAN_UP_SECONDS, 0)]
    assert examples.closed
    assert ("no executor is left" in caplog.text) == failing


def test_what_cannot_be_spooled_again_is_deleted_once(spooled):
    spool, examples = spooled([3])
    with pytest.raises(IndexError), spool:
        spool.respool()
    assert examples.cleaned == [("clean_host", CLEAN_UP_SECONDS, 0)]
    assert examples.closed


def a_fit(mode, rule, shards=(6, 2)):
    plan = TrainingPlan.create(mode=mode, frequency="batch")
    aggregator = Aggregator(SPEC, np.zeros(3, "f4"), optimizers.get(rule), mode)
    plans = {s: ShardPlan(n, plan.exchanges(n)) for s, n in enumerate(shards)}
    job = SimpleNamespace(
        plan=plan,
        aggregator=aggregator,
        spec=SimpleNamespace(weights=SPEC),
        monitor=SimpleNamespace(begin_epoch=lambda epoch: None),
    )
    return job, Coordinator(aggregator, plans, Whole(SPEC))


def test_a_shard_whose_files_are_gone_ends_the_job_at_once():
    """The others wait for it: there is no use in waiting for them."""
    job, coordinator = a_fit("synchronous", "average")
    coordinator.hello(1, 0)
    coordinator.report(1, 0, {"kind": "missing"}, [])
    running = SimpleNamespace(finished=SimpleNamespace(is_set=lambda: False))
    with pytest.raises(ShardsMissing):
        LiveFit(job, coordinator, None, b"").wait(running, 0)


@pytest.mark.parametrize("stopped", [False, True])
def test_what_follows_a_jobs_last_report_counts_to_its_last_epoch(monkeypatch, stopped):
    """Two jobs of an epoch each: what a worker tells with its result is of this job alone."""
    job, coordinator = a_fit("asynchronous", "average")
    job.epochs = []
    fit = LiveFit(job, coordinator, None, b"")

    def finish_epoch(epoch, report):
        workers = tuple({"shard": shard, "bytes_sent": 5} for shard in (0, 1))
        job.epochs.append(EpochFacts(epoch, 1, workers))
        return stopped

    def submit(first, stop):
        results = [ShardResult(s, 6, rest=Usage(bytes_sent=10 * first + s)) for s in (0, 1)]
        return SimpleNamespace(result=lambda: results)

    monkeypatch.setattr(fit, "submit", submit)
    monkeypatch.setattr(fit, "wait", lambda spark_job, epoch: None)
    monkeypatch.setattr(fit, "finish_epoch", finish_epoch)
    assert fit.run_to(1, 2) == (2, stopped)
    assert fit.run_to(2, 3) == (3, stopped)
    sent = [[worker["bytes_sent"] for worker in facts.workers] for facts in job.epochs]
    assert sent == [[15, 16], [25, 26]]


@pytest.mark.parametrize(
    ("waited", "active", "enough"),
    [(59, 0, True), (61, 1, False), (61, 2, True), (299, 2, True), (301, 2, False)],
)
def test_replicas_that_do_not_come(monkeypatch, waited, active, enough):
    """Two replicas are wanted, and one has come."""
    job, coordinator = a_fit("synchronous", "average")
    job.plan = TrainingPlan.create(mode="synchronous", frequency="batch", timeout=60.0)
    coordinator.hello(1, 0)
    fit = LiveFit(job, coordinator, SimpleNamespace(address=("host", 7)), b"")
    monkeypatch.setattr(live.time, "monotonic", lambda: fit.submitted + waited)
    running = SimpleNamespace(active_tasks=lambda: active)
    if enough:
        fit.check_started(running)
        return
    with pytest.raises(ClusterError, match=rf"1 of 2 workers connected .* within {waited} s"):
        fit.check_started(running)


class Idle:
    """Stands for a server to which nobody comes."""

    def start(self):
        pass

    def close(self):
        pass


@pytest.mark.parametrize(("rule", "scales"), [("average", (0.75, 0.25)), ("downpour", (1.0, 1.0))])
def test_hogwild_replicas_of_this_host_are_offered_the_weights_themselves(rule, scales):
    job, coordinator = a_fit("hogwild", rule)
    own = job.aggregator.weights
    with shared_weights(job, coordinator):
        offers = coordinator.offers
        assert [offers[s].scale for s in (0, 1)] == list(scales)
        assert [offers[s].share for s in (0, 1)] == [0.75, 0.25]
        assert [offers[s].slot for s in (0, 1)] == [0, 1]
        job.aggregator.weights[:] = 5
    assert job.aggregator.weights is own
    assert own.tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("mode", "rule"), [("asynchronous", "average"), ("hogwild", "adag"), ("hogwild", "sgd")]
)
def test_nobody_else_is(mode, rule):
    job, coordinator = a_fit(mode, rule)
    with shared_weights(job, coordinator):
        assert coordinator.offers == {}


def test_a_fit_that_fails_at_once_tells_of_no_epoch_and_keeps_the_rules_state(monkeypatch):
    def refuse(spark, backend):
        raise ClusterError("no workers")

    monkeypatch.setattr("kspark.spark_model.training.check_cluster_once", refuse)
    plan = TrainingPlan.create(mode="synchronous", frequency="epoch")
    source, spec = SimpleNamespace(spark=None, replica=None), SimpleNamespace(backend="tensorflow")
    before = {"m": np.ones(2)}
    outcome = Outcome(before, FitReport("hogwild", 3, (EpochFacts(0, 1),)))
    with pytest.raises(ClusterError):
        train(source, plan, spec, None, optimizers.get("average"), outcome, [], 0)
    assert outcome.report == FitReport("synchronous", "epoch")
    assert outcome.server_state is before


class Halving(Downpour):
    """A user's own rule, of which `scale` alone says nothing."""

    def apply(self, weights, delta, context):
        weights += delta / 2


def test_a_rule_that_is_more_than_a_scale_stays_on_the_driver():
    job, coordinator = a_fit("hogwild", Halving())
    with shared_weights(job, coordinator):
        assert coordinator.offers == {}


def test_an_epoch_that_starts_again_has_the_weights_its_callbacks_set(monkeypatch):
    """Also the first one: they come before the weights are kept for that."""
    job, _ = a_fit("synchronous", "average")
    job.plan = TrainingPlan.create(mode="synchronous", frequency="batch")
    job.num_train = {0: 10}
    job.monitor.needs_optimizer_state, job.validates = False, False
    monkeypatch.setattr(live, "open_epoch", lambda job, epoch: job.aggregator.weights.fill(7))
    monkeypatch.setattr(live, "AggregatorServer", lambda *args, **more: Idle())
    monkeypatch.setattr(live, "bind_host", lambda job: "")

    def run_to(fit, epoch, stop):
        fit.coordinator.hello(0, 0)
        gradient = np.ones(2, "f4")
        fit.coordinator.reduce(0, 0, 0, 8, gradient, np.empty(3, "f4"))
        fit.fit.aggregator.weights.fill(1)
        fit.coordinator.hello(0, 1)  # the replica is back: the epoch starts again
        raise StopIteration

    monkeypatch.setattr(LiveFit, "run_to", run_to)
    with pytest.raises(StopIteration):
        live.train_live(job)
    assert job.aggregator.weights.tolist() == [7, 7, 7]


def test_pushes_tell_the_rule_how_many_batches_are_behind_them(monkeypatch):
    job, _ = a_fit("asynchronous", "adag")
    job.plan = TrainingPlan.create(mode="asynchronous", frequency=2, batch_size=4)
    job.num_train = {0: 10}

    monkeypatch.setattr(live, "AggregatorServer", lambda *args, **more: Idle())
    monkeypatch.setattr(live, "bind_host", lambda job: "")
    with live.live_fit(job) as fit:
        fit.coordinator.hello(0, 0)
        delta, out = np.array([8, 0, 0], "f4"), np.empty(3, "f4")
        fit.coordinator.push(0, 0, 1, 0, 8, delta, out)
    assert out.tolist() == [4, 0, 0]  # the average of two steps


def labelled(*labels):
    """Spooled examples with so many rows as there are labels."""
    facts = LabelStats.of(np.array(labels))
    stored = StoredArray("y0", "int64", (), "y0.bin", 8 * len(labels))
    info = ShardHandle(0, len(labels), "", "", 0, y=(stored,), stats=(facts,))
    return SimpleNamespace(infos=[info], counts={0: len(labels)}, num_examples=len(labels))


@pytest.mark.parametrize(
    ("train", "held_out", "start"),
    [([0, 1], [0, 2], "In `validation_data`: `y` must be class"), ([2], [0], "`y` must be class")],
)
def test_labels_that_do_not_fit_say_whose_they_are(train, held_out, start):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(loss="sparse_categorical_crossentropy")
    monitor = SimpleNamespace(replica=SimpleNamespace(model=model))
    parts = {"train": labelled(*train), "held_out": labelled(*held_out)}
    job = SimpleNamespace(validation_split=0.0, monitor=monitor, num_examples=1, **parts)
    with pytest.raises(ValueError) as caught:
        divide(job)
    assert str(caught.value).startswith(start)


def test_optimizer_state_that_is_lost_is_told(caplog):
    job = SimpleNamespace(epochs=[])
    workers = [{"shard": i, "state_kept": i != 3} for i in range(5)]
    with caplog.at_level("WARNING", "kspark"):
        note_epoch(job, EpochFacts(0, 1, tuple(workers[:3])))
        assert not caplog.messages
        note_epoch(job, EpochFacts(1, 1, tuple(workers)))
    assert [facts.epoch for facts in job.epochs] == [0, 1]
    (message,) = caplog.messages
    assert message.startswith("Epoch 2: ") and "shards [3] are gone" in message
