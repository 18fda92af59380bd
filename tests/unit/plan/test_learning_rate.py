"""The learning rate for a joint batch: factors by hand, refusals, and the rate of each epoch."""

from __future__ import annotations

import logging
import pickle
from contextlib import nullcontext
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.job.fit import Fit
from kspark.job.preparing import divide, log_plan
from kspark.live.coordinator.running import Running
from kspark.live.driver import LiveFit
from kspark.optimizers import Average, OneShot
from kspark.plan import TrainingPlan
from kspark.plan.learning_rate import Scaling
from kspark.replica import Replica
from kspark.rounds import driver as rounds
from kspark.rounds.driver import Round
from kspark.worker.tasks import ShardResult


def plan(frequency="batch", mode="synchronous", **more):
    return TrainingPlan.create(mode=mode, frequency=frequency, **more)


def fit_of(made, num_train, rate=0.5):
    """A fit whose shards are known and whose model has a learning rate."""
    monitor = SimpleNamespace(learning_rate=rate)
    merging = SimpleNamespace(optimizer=Average())
    fit = Fit(None, None, made, None, None, 0.0, merging, monitor)
    fit.num_train = dict(enumerate(num_train))
    return fit


# -- the factor ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "warmup", "factors"),
    [
        ("linear", 0, [9, 9, 9, 9, 9, 9]),
        ("sqrt", 0, [3, 3, 3, 3, 3, 3]),
        ("linear", 4, [1, 3, 5, 7, 9, 9]),
        ("sqrt", 4, [1, 1.5, 2, 2.5, 3, 3]),
        ("linear", 1, [1, 9, 9, 9, 9, 9]),
        ("linear", 2.5, [1, 4.2, 7.4, 9, 9, 9]),
    ],
)
def test_nine_workers_scale_the_rate_by_the_rule_and_the_warmup(rule, warmup, factors):
    scaling = Scaling(rule, warmup)
    assert [scaling.factor(9, epoch) for epoch in range(6)] == pytest.approx(factors)
    assert scaling.full_factor(9) == factors[-1]


@pytest.mark.parametrize("rule", ["linear", "sqrt"])
def test_a_single_worker_keeps_the_rate(rule):
    assert [Scaling(rule, 3).factor(1, epoch) for epoch in range(5)] == [1.0] * 5


# -- what is refused -------------------------------------------------------------------------------


def test_scaling_is_off_by_default_and_can_be_pickled_with_the_plan():
    assert plan().scaling is plan(scale_lr=None, warmup_epochs=0).scaling is None
    made = plan(scale_lr="sqrt", warmup_epochs=np.float32(2.5), seed=1)
    assert made.scaling == Scaling("sqrt", 2.5)
    assert type(made.scaling.warmup_epochs) is float
    assert pickle.loads(pickle.dumps(made)) == made
    assert plan(scale_lr="linear").scaling == Scaling("linear", 0.0)


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ({"scale_lr": "log"}, ValueError, '`scale_lr` must be None, "linear" or "sqrt". Received'),
        ({"scale_lr": True}, ValueError, '`scale_lr` must be None, "linear" or "sqrt". Received'),
        (
            {"warmup_epochs": 3},
            ValueError,
            "`warmup_epochs` must be 0 without `scale_lr`. Received",
        ),
        ({"warmup_epochs": -1}, ValueError, "`warmup_epochs` must be a finite number of epochs"),
        ({"warmup_epochs": np.inf}, ValueError, "`warmup_epochs` must be a finite number of epo"),
        ({"warmup_epochs": np.nan}, ValueError, "`warmup_epochs` must be a finite number of epo"),
        ({"warmup_epochs": "3"}, TypeError, "`warmup_epochs` must be a finite number of epochs"),
        ({"warmup_epochs": True}, TypeError, "`warmup_epochs` must be a finite number of epochs"),
    ],
)
def test_wrong_arguments_are_named_in_the_error(arguments, kind, told):
    with pytest.raises(kind, match=told):
        plan(**arguments)


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [("synchronous", "epoch"), ("synchronous", 1), ("asynchronous", "batch"), ("hogwild", "batch")],
)
def test_scaling_is_refused_where_replicas_take_their_own_steps(mode, frequency):
    with pytest.raises(ValueError, match=rf'`scale_lr` must be None with mode="{mode}" and freq'):
        plan(frequency, mode, scale_lr="linear")


def model_with(rate):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def test_scaling_of_a_schedule_is_refused_before_spark_starts():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    spark_model = SparkModel(model_with(schedule), frequency="batch")
    with pytest.raises(ValueError, match="`scale_lr` must be None when a `LearningRateSchedule`"):
        spark_model.fit(np.zeros((4, 2)), np.zeros(4), scale_lr="linear")


def test_fit_checks_the_scaling_arguments_before_spark_starts():
    x, y = np.zeros((4, 2)), np.zeros(4)
    with pytest.raises(ValueError, match='`scale_lr` must be None with mode="synchronous" and fre'):
        SparkModel(model_with(0.1)).fit(x, y, scale_lr="linear")
    with pytest.raises(ValueError, match="`warmup_epochs` must be 0 without `scale_lr`"):
        SparkModel(model_with(0.1)).fit(x, y, warmup_epochs=2)


# -- what workers are told -------------------------------------------------------------------------


def test_workers_get_the_scaled_rate_and_the_model_keeps_its_own():
    fit = fit_of(plan(scale_lr="linear", warmup_epochs=2), [8, 0, 8, 8, 3])  # four train
    fit.monitor = SimpleNamespace(learning_rate=Replica.of(model_with(0.5)).learning_rate)
    assert [fit.learning_rate(epoch) for epoch in range(4)] == [0.5, 1.25, 2.0, 2.0]
    assert fit.monitor.learning_rate == 0.5


def test_a_rate_that_a_callback_sets_is_scaled():
    fit = fit_of(plan(scale_lr="sqrt"), [8] * 4)
    assert fit.learning_rate(0) == 1.0
    fit.monitor.learning_rate = 0.125
    assert fit.learning_rate(1) == 0.25


@pytest.mark.parametrize(
    ("made", "rate"), [(plan(), 0.5), (plan(), None), (plan(scale_lr="linear"), None)]
)
def test_the_rate_is_unchanged_without_scaling_or_with_a_schedule(made, rate):
    assert fit_of(made, [8, 8], rate).learning_rate(3) == rate


@pytest.mark.parametrize("grouping", [None, "groups"])
def test_a_round_gets_the_rate_of_its_epoch(tools, monkeypatch, grouping):
    """The task also says whether results include state; groups return state separately."""
    fit = fit_of(plan("epoch", epochs=3, initial_epoch=2), [8, 8])
    told = []
    fit.sent_weights = SimpleNamespace(share=lambda weights: nullcontext((weights, 7)))
    monkeypatch.setattr(rounds, "ship", lambda train, task, shared: told.append(task))
    monkeypatch.setattr(Fit, "task", lambda self: None)
    monkeypatch.setattr(Fit, "learning_rate", lambda self, epoch: epoch / 4)
    for name in ("open_epoch", "close_epoch", "take_state", "unpacked_deltas"):
        monkeypatch.setattr(rounds, name, lambda *_: [])
    collected = [ShardResult(0, 8, facts=tools.facts(batches=1))]
    monkeypatch.setattr(Fit, "collect", lambda *_: collected)
    monkeypatch.setattr(rounds, "delta_grouping_of", lambda fit: grouping)
    monkeypatch.setattr(rounds, "run_grouped_round", lambda *_: Round(collected, [], []))
    fit.aggregator = SimpleNamespace(weights=np.zeros(3), merge=lambda *_, num_steps: None)
    fit.train = None
    jobs = SimpleNamespace(train=lambda order: None, end=lambda: None)
    monkeypatch.setattr(rounds, "long_jobs", lambda fit: nullcontext(jobs))
    rounds.train_rounds(fit)
    assert [(task.epoch, task.learning_rate, task.weights_bytes) for task in told] == [(2, 0.5, 7)]
    assert [task.wants_state for task in told] == [grouping is None]
    assert [facts.learning_rate for facts in fit.epochs] == [0.5]


def test_live_workers_get_the_rate_of_the_next_epoch(monkeypatch):
    """The task has the rate of its first epoch; the end of each epoch gives that of the next."""
    fit = fit_of(plan(scale_lr="linear", warmup_epochs=4, epochs=9), [8, 8])
    told, facts = [], []
    coordinator = SimpleNamespace(
        rendezvous=None,
        running=Running(),
        begin_job=lambda *_, **__: None,
        merges=1,
        close_epoch=lambda epoch, stop, learning_rate: told.append((epoch, learning_rate)),
    )
    live = LiveFit(fit, coordinator, SimpleNamespace(address=("host", 1)), b"")
    monkeypatch.setattr("kspark.live.driver.advertised_host", lambda *_: "host")
    monkeypatch.setattr("kspark.live.driver.Unreached", SimpleNamespace(of=lambda _: None))
    monkeypatch.setattr("kspark.live.driver.ship", lambda train, task, shared: told.append(task))
    monkeypatch.setattr("kspark.live.driver.SparkJob", lambda *_: SimpleNamespace(start=lambda: 7))
    monkeypatch.setattr("kspark.live.driver.close_epoch", lambda *_: False)
    monkeypatch.setattr("kspark.live.driver.open_epoch", lambda *_: None)
    monkeypatch.setattr("kspark.live.driver.note_epoch", lambda fit, made: facts.append(made))
    monkeypatch.setattr(Fit, "task", lambda self: None)
    fit.train = SimpleNamespace(handles=SimpleNamespace(mapPartitionsWithIndex=lambda _: None))
    assert live.submit(2, 9) == 7
    report = SimpleNamespace(facts={}, staleness=(), metrics={}, counters={})
    assert not live.finish_epoch(2, report)
    assert (told[0].stop_epoch, told[0].learning_rate) == (9, 0.75)
    assert told[1] == (2, 0.875)
    assert facts[0].learning_rate == 0.75


# -- the log and the report ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "frequency", "updates"),
    [
        ("synchronous", "epoch", 1),
        ("synchronous", "batch", 4),
        ("synchronous", 2, 2),
        ("asynchronous", "epoch", 3),
        ("asynchronous", 2, 2 + 1 + 1),
        ("hogwild", "batch", 4 + 2 + 1),
    ],
)
def test_the_workload_counts_examples_workers_and_updates(mode, frequency, updates):
    fit = fit_of(plan(frequency, mode, batch_size=4), [16, 7, 0, 3])
    work = fit.report.workload
    assert (work.num_examples, work.num_workers, work.global_batch) == (26, 3, 12)
    assert work.updates == updates
    assert work.to_dict() == {
        "num_examples": 26, "num_workers": 3, "batch_size": 4, "updates": updates,
        "global_batch": 12,
    }  # fmt: skip


def test_replicas_that_train_apart_have_no_updates_within_the_fit():
    fit = fit_of(plan("epoch", "synchronous", batch_size=4), [16, 7])
    fit.aggregator.optimizer = OneShot()
    assert fit.report.workload.updates == 0
    assert fit.report.server_optimizer == "one_shot"


def test_a_fit_that_has_not_begun_has_no_workload():
    assert fit_of(plan(), []).report.workload is None


def test_the_log_gives_workers_batches_updates_and_the_factor(caplog):
    fit = fit_of(plan(batch_size=4, scale_lr="linear", warmup_epochs=2.5), [16, 9, 0, 9])
    with caplog.at_level(logging.INFO, "kspark"):
        log_plan(fit)
    assert caplog.messages == [
        "Training on 34 examples with 3 workers, 4 examples per batch and worker, global batch "
        "12, 4 updates of the weights per epoch; mode synchronous, frequency batch.",
        "The learning rate is multiplied by 3 (linear) after 2.5 epochs of warm-up.",
    ]


def test_the_log_is_written_once_when_the_work_is_divided(caplog):
    fit = fit_of(plan("epoch"), [])
    fit.train = SimpleNamespace(counts={0: 8, 1: 8}, infos=[], num_examples=16)
    fit.monitor.replica = SimpleNamespace(model=model_with(0.1))
    with caplog.at_level(logging.INFO, "kspark"):
        divide(fit)
    (message,) = caplog.messages
    assert message.startswith("Training on 16 examples with 2 workers, 32 examples per batch")
