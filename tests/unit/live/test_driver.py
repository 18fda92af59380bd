"""The driver of a live fit: jobs, shared memory, restarted epochs; without Spark."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kspark import compression as codecs
from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.cluster.unreached import Unreached
from kspark.errors import ClusterError, FitEndedError, WorkerError
from kspark.job.collecting import ShardsMissing
from kspark.job.progress import Progress
from kspark.job.report import EpochFacts
from kspark.live import driver as live
from kspark.live import sharing
from kspark.live.coordinator import Coordinator, ShardPlan, attendance
from kspark.live.driver import MAX_SPREADS, LiveFit
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
        train=SimpleNamespace(infos=[SimpleNamespace(index=s, host=f"h{s}") for s in (0, 1)]),
    )
    return fit, Coordinator(aggregator, plans, Whole(SPEC))


@pytest.mark.parametrize("strayed", [False, True])
def test_a_shard_without_files_ends_the_job_at_once(strayed):
    """The other shards would wait for it."""
    fit, coordinator = a_fit("synchronous", "average")
    coordinator.hello(1, 0)
    coordinator.report(1, 0, {"kind": "missing", "strayed": strayed}, [])
    running = SimpleNamespace(finished=SimpleNamespace(is_set=lambda: False))
    with pytest.raises(ShardsMissing) as found:
        LiveFit(fit, coordinator, None, b"").wait(running, 0)
    assert (found.value.strayed, found.value.gone) == (([1], []) if strayed else ([], [1]))
    coordinator.begin_job(1)
    assert not coordinator.missing | coordinator.strayed


def test_strays_are_spread_over_the_slots_and_do_not_count_as_failures(monkeypatch, caplog):
    fit, coordinator = a_fit("hogwild", "average")
    fit.plan = replace(fit.plan, max_failures=0)
    monkeypatch.setattr(live, "locality_seconds", lambda spark: 7.0)
    holds = []
    fit.train = SimpleNamespace(respool=lambda hold=0.0: holds.append(hold))
    live_fit = LiveFit(fit, coordinator, None, b"")
    for _ in range(MAX_SPREADS):
        live_fit.lost(ShardsMissing([1]))
    assert holds == [7.0] * MAX_SPREADS
    assert "tasks of shards [1] run on executors without their files" in caplog.text
    with pytest.raises(ClusterError, match=f"over all task slots {MAX_SPREADS} times"):
        live_fit.lost(ShardsMissing([1]))
    live_fit.lost(ShardsMissing([], [1]))  # files that are gone are failures
    assert holds[MAX_SPREADS:] == [0.0]
    with pytest.raises(WorkerError, match=r"files of shards \[1\] are gone"):
        live_fit.lost(ShardsMissing([], [1]))


def test_an_epoch_that_has_ended_forgives_strays(monkeypatch):
    """Those of a week's fit are not added up."""
    fit, coordinator = a_fit("asynchronous", "average")
    fit.states, fit.learning_rate = SimpleNamespace(), lambda epoch: None
    monkeypatch.setattr(live, "locality_seconds", lambda spark: 0.0)
    for name in ("run_batch_hooks", "note_epoch", "open_epoch", "close_epoch"):
        monkeypatch.setattr(live, name, lambda *_: False)
    monkeypatch.setattr(coordinator, "close_epoch", lambda *_, **__: None)
    spooled = []
    fit.train = SimpleNamespace(respool=lambda hold: spooled.append(hold))
    live_fit = LiveFit(fit, coordinator, None, b"")
    report = SimpleNamespace(facts={}, staleness=(), metrics={}, counters={})
    for epoch in range(3):
        for _ in range(MAX_SPREADS):
            live_fit.lost(ShardsMissing([1]))
        live_fit.finish_epoch(epoch, report)
    assert len(spooled) == 3 * MAX_SPREADS


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
    monkeypatch.setattr(live, "advertised_host", lambda spark, host: "driver")
    running = SimpleNamespace(active_tasks=lambda: active)
    if enough:
        live_fit.check_started(running)
        return
    told = (
        rf"1 of 2 workers connected .* driver:7 within {waited} s\. .*host h0 \(shard 0\).*`port`"
    )
    with pytest.raises(ClusterError, match=told):
        live_fit.check_started(running)


def waits(live_fit):
    """Wait for an epoch of a job that goes on."""
    running = SimpleNamespace(finished=SimpleNamespace(is_set=lambda: False))
    live_fit.wait(running, 0)


@pytest.mark.parametrize(("mode", "timeouts"), [("synchronous", 1), ("asynchronous", 5)])
def test_a_lost_host_is_named_when_its_time_is_over(monkeypatch, mode, timeouts):
    """The others wait for a synchronous replica, and not for an asynchronous one."""
    fit, coordinator = a_fit(mode, "average")
    live_fit = LiveFit(fit, coordinator, None, b"")
    for shard in (0, 1):
        coordinator.hello(shard, 0)
    coordinator.lost(1, 0, "The other side is gone.")
    lost_at, checks = time.monotonic(), []
    monkeypatch.setattr(coordinator, "wait_for_epoch", lambda *_: checks.append(1))
    monkeypatch.setattr(live_fit, "check_started", lambda job: jump(60.0 * timeouts + 1))

    def jump(seconds):
        monkeypatch.setattr(attendance.time, "monotonic", lambda: lost_at + seconds)

    jump(60.0 * timeouts - 1)
    with pytest.raises(ClusterError, match=r"workers on host h1 \(shard 1\) were lost.*`timeout`"):
        waits(live_fit)
    assert len(checks) == 2


def test_a_worker_that_cannot_reach_the_driver_ends_the_fit(monkeypatch):
    fit, coordinator = a_fit("asynchronous", "average")
    live_fit = LiveFit(fit, coordinator, SimpleNamespace(address=("", 7)), b"")
    monkeypatch.setattr(live, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(live, "advertised_host", lambda spark, host: "driver")
    live_fit.unreached = Unreached(SimpleNamespace(value=0b11))
    told = r"driver at driver:7 from host h0 \(shard 0\), host h1 \(shard 1\).*nothing.*`port`"
    with pytest.raises(ClusterError, match=told):
        waits(live_fit)


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
    monkeypatch.setattr(live, "Placement", lambda fit: SimpleNamespace(spread=lambda: None))

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
