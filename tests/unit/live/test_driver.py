"""The driver of a live fit: jobs, shared memory, restarted epochs; without Spark."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from kspark import compression as codecs
from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.errors import ClusterError, FitEndedError
from kspark.job.collecting import ShardsMissing
from kspark.job.progress import Progress
from kspark.job.report import EpochFacts
from kspark.live import driver as live
from kspark.live import sharing
from kspark.live.coordinator import Coordinator, ShardPlan
from kspark.live.driver import LiveFit
from kspark.live.sharing import shared_memory
from kspark.optimizers import Downpour
from kspark.plan import TrainingPlan
from kspark.shards import Usage
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, Whole
from kspark.worker.tasks import ShardResult

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE), Weight("m", (1,), "float32", STATE)))


def a_fit(mode, rule, shards=(6, 2)):
    plan = TrainingPlan.create(mode=mode, frequency="batch")
    aggregator = Aggregator(SPEC, np.zeros(3, "f4"), optimizers.get(rule), mode)
    plans = {s: ShardPlan(n, plan.exchanges(plan.batches(n))) for s, n in enumerate(shards)}
    fit = SimpleNamespace(
        plan=plan,
        aggregator=aggregator,
        spec=SimpleNamespace(weights=SPEC),
        monitor=SimpleNamespace(begin_epoch=lambda epoch: None),
        spark=SimpleNamespace(sparkContext=SimpleNamespace(master="yarn")),
        reply_residual=None,
        checkpoints=None,
        unmixed=None,
        progress=Progress(0, 1, 0),
        take_road=lambda road, reason: None,
    )
    return fit, Coordinator(aggregator, plans, Whole(SPEC))


def test_a_shard_whose_files_are_gone_ends_the_job_at_once():
    """The other shards would wait for it."""
    fit, coordinator = a_fit("synchronous", "average")
    coordinator.hello(1, 0)
    coordinator.report(1, 0, {"kind": "missing"}, [])
    running = SimpleNamespace(finished=SimpleNamespace(is_set=lambda: False))
    with pytest.raises(ShardsMissing):
        LiveFit(fit, coordinator, None, b"").wait(running, 0)


@pytest.mark.parametrize("stopped", [False, True])
def test_usage_after_the_last_report_of_a_job_is_added_to_its_last_epoch(monkeypatch, stopped):
    """Two jobs of one epoch each: the usage in a result is that of its job alone."""
    fit, coordinator = a_fit("asynchronous", "average")
    fit.epochs = []
    live_fit = LiveFit(fit, coordinator, None, b"")

    def finish_epoch(epoch, report):
        workers = tuple({"shard": shard, "bytes_sent": 5} for shard in (0, 1))
        fit.epochs.append(EpochFacts(epoch, 1, workers))
        return stopped

    def submit(first, stop):
        results = [ShardResult(s, 6, rest=Usage(bytes_sent=10 * first + s)) for s in (0, 1)]
        return SimpleNamespace(result=lambda: results)

    monkeypatch.setattr(live_fit, "submit", submit)
    monkeypatch.setattr(live_fit, "wait", lambda spark_job, epoch: None)
    monkeypatch.setattr(live_fit, "finish_epoch", finish_epoch)
    assert live_fit.run_to(1, 2) == (2, stopped)
    assert live_fit.run_to(2, 3) == (3, stopped)
    sent = [[worker["bytes_sent"] for worker in facts.workers] for facts in fit.epochs]
    assert sent == [[15, 16], [25, 26]]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(KeyboardInterrupt(), "the fit was interrupted"), (ClusterError("no"), "the fit failed")],
)
def test_replicas_are_told_whether_the_fit_failed_or_was_interrupted(monkeypatch, error, reason):
    fit, coordinator = a_fit("asynchronous", "average")
    live_fit, cancelled = LiveFit(fit, coordinator, None, b""), []

    def wait(spark_job, epoch):
        raise error

    job = SimpleNamespace(cancel=lambda: cancelled.append(True))
    monkeypatch.setattr(live_fit, "submit", lambda first, stop: job)
    monkeypatch.setattr(live_fit, "wait", wait)
    with pytest.raises(type(error)):
        live_fit.run_to(0, 1)
    assert cancelled
    with pytest.raises(FitEndedError, match=reason):
        coordinator.hello(0, 0)


@pytest.mark.parametrize(
    ("waited", "active", "enough"),
    [(59, 0, True), (61, 1, False), (61, 2, True), (299, 2, True), (301, 2, False)],
)
def test_missing_replicas_are_an_error_after_the_timeout(monkeypatch, waited, active, enough):
    """One of two replicas has connected."""
    fit, coordinator = a_fit("synchronous", "average")
    fit.plan = TrainingPlan.create(mode="synchronous", frequency="batch", timeout=60.0)
    coordinator.hello(1, 0)
    live_fit = LiveFit(fit, coordinator, SimpleNamespace(address=("host", 7)), b"")
    monkeypatch.setattr(live.time, "monotonic", lambda: live_fit.submitted + waited)
    running = SimpleNamespace(active_tasks=lambda: active)
    if enough:
        live_fit.check_started(running)
        return
    with pytest.raises(ClusterError, match=rf"1 of 2 workers connected .* within {waited} s"):
        live_fit.check_started(running)


class Idle:
    """Stands for a server without clients."""

    def start(self):
        pass

    def close(self):
        pass


@pytest.mark.parametrize(("rule", "scales"), [("average", (0.75, 0.25)), ("downpour", (1.0, 1.0))])
def test_hogwild_replicas_of_this_host_are_offered_shared_memory(rule, scales):
    fit, coordinator = a_fit("hogwild", rule)
    own = fit.aggregator.weights
    with shared_memory(fit, coordinator, fit.plan.packing(fit.spec.weights)):
        offers = coordinator.offers
        assert [offers[s].scale for s in (0, 1)] == list(scales)
        assert [offers[s].share for s in (0, 1)] == [0.75, 0.25]
        assert [offers[s].slot for s in (0, 1)] == [0, 1]
        assert coordinator.apart(1, 7) == 0
        fit.aggregator.weights[:] = 5
    assert fit.aggregator.weights is own
    assert own.tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("mode", "rule"), [("asynchronous", "average"), ("hogwild", "adag"), ("hogwild", "sgd")]
)
def test_other_modes_and_rules_do_not_share_memory(mode, rule):
    fit, coordinator = a_fit(mode, rule)
    with shared_memory(fit, coordinator, fit.plan.packing(fit.spec.weights)):
        assert coordinator.offers == {}


class Halving(Downpour):
    """A custom rule that does not use `scale`."""

    def apply(self, weights, delta, context):
        weights += delta / 2


def test_a_rule_that_is_more_than_a_scale_stays_on_the_driver():
    fit, coordinator = a_fit("hogwild", Halving())
    with shared_memory(fit, coordinator, fit.plan.packing(fit.spec.weights)):
        assert coordinator.offers == {}


def test_a_model_with_constraints_does_not_share_memory():
    """The aggregator applies them after each push."""
    fit, coordinator = a_fit("hogwild", "average")
    fit.aggregator.keep_constraints(lambda weights: None)
    with shared_memory(fit, coordinator, fit.plan.packing(fit.spec.weights)):
        assert coordinator.offers == {}


def a_batch_fit(master="local[2]", **more):
    fit, _ = a_fit("synchronous", "average")
    fit.plan = TrainingPlan.create(mode="synchronous", frequency="batch", **more)
    fit.spark = SimpleNamespace(sparkContext=SimpleNamespace(master=master))
    plans = {s: ShardPlan(n, 1) for s, n in enumerate((6, 2))}
    packing = fit.plan.packing(SPEC)
    return fit, Coordinator(fit.aggregator, plans, packing, merge_gradients=True), packing


def test_exact_replicas_of_this_host_are_offered_shared_memory():
    fit, coordinator, packing = a_batch_fit()
    with shared_memory(fit, coordinator, packing):
        offers = [coordinator.offers[s] for s in (0, 1)]
        assert [(offer.slot, offer.shards) for offer in offers] == [(0, (0, 1)), (1, (0, 1))]
        assert coordinator.rendezvous.apart
        assert os.path.exists(offers[0].path)
    assert not os.path.exists(offers[0].path)


@pytest.mark.parametrize(
    ("master", "more", "limit"),
    [
        ("yarn", {}, 1000),
        ("local-cluster[2,1,1024]", {}, 1000),
        ("local[2]", {"compression": "float16"}, 1000),
        ("local[2]", {}, 31),
    ],
)
def test_other_exact_replicas_meet_at_the_driver(monkeypatch, master, more, limit):
    """Those of other hosts, with compression, and those of large models."""
    if "compression" in more:
        more = {"compression": codecs.get(more["compression"])}
    fit, coordinator, packing = a_batch_fit(master, **more)
    monkeypatch.setattr(sharing, "MAX_BYTES", limit)
    with shared_memory(fit, coordinator, packing):
        assert coordinator.offers == {}
        assert not coordinator.rendezvous.apart


def test_exact_replicas_meet_at_the_driver_if_there_is_no_room(monkeypatch):
    def full(spec, num_shards):
        raise OSError(28, "No space left on device")

    fit, coordinator, packing = a_batch_fit()
    monkeypatch.setattr(sharing.SharedGradients, "create", full)
    with shared_memory(fit, coordinator, packing):
        assert coordinator.offers == {}
        assert not coordinator.rendezvous.apart


def test_an_epoch_that_starts_again_has_the_weights_its_callbacks_set(monkeypatch):
    """Also the first epoch: its callbacks run before the weights are copied for a restart."""
    fit, _ = a_fit("synchronous", "average")
    fit.plan = TrainingPlan.create(mode="synchronous", frequency="batch")
    fit.num_train = {0: 10}
    fit.monitor.needs_optimizer_state, fit.validates = False, False
    monkeypatch.setattr(live, "open_epoch", lambda fit, epoch: fit.aggregator.weights.fill(7))
    monkeypatch.setattr(live, "AggregatorServer", lambda *args, **more: Idle())
    monkeypatch.setattr(live, "bind_host", lambda spark: "")

    def run_to(live_fit, epoch, stop):
        live_fit.coordinator.hello(0, 0)
        gradient = np.ones(2, "f4")
        live_fit.coordinator.reduce(0, 0, 0, 8, gradient, np.empty(3, "f4"))
        live_fit.fit.aggregator.weights.fill(1)
        live_fit.coordinator.hello(0, 1)  # the replica is back: the epoch starts again
        raise StopIteration

    monkeypatch.setattr(LiveFit, "run_to", run_to)
    with pytest.raises(StopIteration):
        live.train_live(fit)
    assert fit.aggregator.weights.tolist() == [7, 7, 7]


def test_pushes_tell_the_rule_how_many_batches_are_behind_them(monkeypatch):
    fit, _ = a_fit("asynchronous", "adag")
    fit.plan = TrainingPlan.create(mode="asynchronous", frequency=2, batch_size=4)
    fit.num_train = {0: 10}

    monkeypatch.setattr(live, "AggregatorServer", lambda *args, **more: Idle())
    monkeypatch.setattr(live, "bind_host", lambda spark: "")
    with live.live_fit(fit) as live_fit:
        live_fit.coordinator.hello(0, 0)
        delta, out = np.array([8, 0, 0], "f4"), np.empty(3, "f4")
        live_fit.coordinator.push(0, 0, 1, 0, 8, delta, out)
    assert out.tolist() == [4, 0, 0]  # the average of two steps
