"""The learning rate for a joint batch: factors by hand, what is refused, and who is told of it."""

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
from kspark.live.driver import LiveFit
from kspark.plan import TrainingPlan
from kspark.plan.learning_rate import Scaling
from kspark.replica import Replica
from kspark.rounds import driver as rounds
from kspark.rounds.driver import Round
from kspark.worker.tasks import ShardResult


def plan(frequency="batch", mode="synchronous", **more):
    return TrainingPlan.create(mode=mode, frequency=frequency, **more)


def job_of(made, num_train, rate=0.5):
    """A fit whose shards are known and whose model has a learning rate."""
    monitor = SimpleNamespace(learning_rate=rate)
    job = Fit(None, None, made, None, None, 0.0, None, monitor)
    job.num_train = dict(enumerate(num_train))
    return job


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
def test_nine_workers(rule, warmup, factors):
    scaling = Scaling(rule, warmup)
    assert [scaling.factor(9, epoch) for epoch in range(6)] == pytest.approx(factors)
    assert scaling.full_factor(9) == factors[-1]


@pytest.mark.parametrize("rule", ["linear", "sqrt"])
def test_a_single_worker_changes_nothing(rule):
    assert [Scaling(rule, 3).factor(1, epoch) for epoch in range(5)] == [1.0] * 5


# -- what is refused -------------------------------------------------------------------------------


def test_it_is_off_by_default_and_plain_data_of_the_plan():
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
def test_wrong_arguments_are_named(arguments, kind, told):
    with pytest.raises(kind, match=told):
        plan(**arguments)


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [("synchronous", "epoch"), ("synchronous", 1), ("asynchronous", "batch"), ("hogwild", "batch")],
)
def test_replicas_that_take_steps_of_their_own_keep_the_rate(mode, frequency):
    with pytest.raises(ValueError, match=rf'`scale_lr` must be None with mode="{mode}" and freq'):
        plan(frequency, mode, scale_lr="linear")


def model_with(rate):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def test_a_schedule_is_refused_before_there_is_any_spark():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    spark_model = SparkModel(model_with(schedule), frequency="batch")
    with pytest.raises(ValueError, match="`scale_lr` must be None when a `LearningRateSchedule`"):
        spark_model.fit(np.zeros((4, 2)), np.zeros(4), scale_lr="linear")


def test_fit_checks_both_before_there_is_any_spark():
    x, y = np.zeros((4, 2)), np.zeros(4)
    with pytest.raises(ValueError, match='`scale_lr` must be None with mode="synchronous" and fre'):
        SparkModel(model_with(0.1)).fit(x, y, scale_lr="linear")
    with pytest.raises(ValueError, match="`warmup_epochs` must be 0 without `scale_lr`"):
        SparkModel(model_with(0.1)).fit(x, y, warmup_epochs=2)


# -- what workers are told -------------------------------------------------------------------------


def test_workers_are_told_the_scaled_rate_and_the_model_keeps_its_own():
    job = job_of(plan(scale_lr="linear", warmup_epochs=2), [8, 0, 8, 8, 3])  # four train
    job.monitor = SimpleNamespace(learning_rate=Replica.of(model_with(0.5)).learning_rate)
    assert [job.learning_rate(epoch) for epoch in range(4)] == [0.5, 1.25, 2.0, 2.0]
    assert job.monitor.learning_rate == 0.5


def test_what_a_callback_sets_is_scaled_as_well():
    job = job_of(plan(scale_lr="sqrt"), [8] * 4)
    assert job.learning_rate(0) == 1.0
    job.monitor.learning_rate = 0.125
    assert job.learning_rate(1) == 0.25


@pytest.mark.parametrize(
    ("made", "rate"), [(plan(), 0.5), (plan(), None), (plan(scale_lr="linear"), None)]
)
def test_without_scaling_or_with_a_schedule_the_rate_is_as_it_is(made, rate):
    assert job_of(made, [8, 8], rate).learning_rate(3) == rate


@pytest.mark.parametrize("grouping", [None, "groups"])
def test_a_round_is_told_the_rate_of_its_epoch(tools, monkeypatch, grouping):
    """And whether state comes along, which it does not from groups: these bring it by itself."""
    job = job_of(plan("epoch", epochs=3, initial_epoch=2), [8, 8])
    told = []
    job.sent_weights = SimpleNamespace(share=lambda weights: nullcontext((weights, 7)))
    monkeypatch.setattr(rounds, "ship", lambda train, task, shared: told.append(task))
    monkeypatch.setattr(Fit, "task", lambda self: None)
    monkeypatch.setattr(Fit, "learning_rate", lambda self, epoch: epoch / 4)
    for name in ("open_epoch", "close_epoch", "take_state", "unpacked_deltas"):
        monkeypatch.setattr(rounds, name, lambda *_: [])
    collected = [ShardResult(0, 8, facts=tools.facts(batches=1))]
    monkeypatch.setattr(Fit, "collect", lambda *_: collected)
    monkeypatch.setattr(rounds, "grouping_of_round", lambda job: grouping)
    monkeypatch.setattr(rounds, "run_grouped_round", lambda *_: Round(collected, [], []))
    job.aggregator = SimpleNamespace(weights=np.zeros(3), merge=lambda *_, num_steps: None)
    job.train = None
    rounds.train_rounds(job)
    assert [(task.epoch, task.learning_rate, task.weights_bytes) for task in told] == [(2, 0.5, 7)]
    assert [task.wants_state for task in told] == [grouping is None]
    assert [facts.learning_rate for facts in job.epochs] == [0.5]


def test_live_workers_are_told_the_rate_of_the_epoch_that_comes(monkeypatch):
    """In the task that of the job's first epoch, then at the end of each epoch the next one's."""
    job = job_of(plan(scale_lr="linear", warmup_epochs=4, epochs=9), [8, 8])
    told, facts = [], []
    coordinator = SimpleNamespace(
        begin_job=lambda *_: None,
        merges=1,
        close_epoch=lambda epoch, stop, learning_rate: told.append((epoch, learning_rate)),
    )
    live = LiveFit(job, coordinator, SimpleNamespace(address=("host", 1)), b"")
    monkeypatch.setattr("kspark.live.driver.advertised_host", lambda *_: "host")
    monkeypatch.setattr("kspark.live.driver.ship", lambda train, task, shared: told.append(task))
    monkeypatch.setattr("kspark.live.driver.SparkJob", lambda *_: SimpleNamespace(start=lambda: 7))
    monkeypatch.setattr("kspark.live.driver.close_epoch", lambda *_: False)
    monkeypatch.setattr("kspark.live.driver.open_epoch", lambda *_: None)
    monkeypatch.setattr("kspark.live.driver.note_epoch", lambda job, made: facts.append(made))
    monkeypatch.setattr(Fit, "task", lambda self: None)
    job.train = SimpleNamespace(handles=SimpleNamespace(mapPartitionsWithIndex=lambda _: None))
    assert live.submit(2, 9) == 7
    report = SimpleNamespace(facts={}, staleness=(), metrics={})
    assert not live.finish_epoch(2, report)
    assert (told[0].stop_epoch, told[0].learning_rate) == (9, 0.75)
    assert told[1] == (2, 0.875)
    assert facts[0].learning_rate == 0.75


# -- what the log and the report say ---------------------------------------------------------------


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
def test_how_much_work_there_is(mode, frequency, updates):
    job = job_of(plan(frequency, mode, batch_size=4), [16, 7, 0, 3])
    work = job.report.workload
    assert (work.num_examples, work.num_workers, work.global_batch) == (26, 3, 12)
    assert work.updates == updates
    assert work.to_dict() == {
        "num_examples": 26, "num_workers": 3, "batch_size": 4, "updates": updates,
        "global_batch": 12,
    }  # fmt: skip


def test_nothing_is_told_of_a_fit_that_has_not_begun():
    assert job_of(plan(), []).report.workload is None


def test_the_log_tells_workers_batches_updates_and_the_factor(caplog):
    job = job_of(plan(batch_size=4, scale_lr="linear", warmup_epochs=2.5), [16, 9, 0, 9])
    with caplog.at_level(logging.INFO, "kspark"):
        log_plan(job)
    assert caplog.messages == [
        "Training on 34 examples with 3 workers, 4 examples per batch and worker, global batch "
        "12, 4 updates of the weights per epoch; mode synchronous, frequency batch.",
        "The learning rate is multiplied by 3 (linear) after 2.5 epochs of warm-up.",
    ]


def test_the_log_is_written_once_when_the_work_is_divided(caplog):
    job = job_of(plan("epoch"), [])
    job.train = SimpleNamespace(counts={0: 8, 1: 8}, infos=[], num_examples=16)
    job.monitor.replica = SimpleNamespace(model=model_with(0.1))
    with caplog.at_level(logging.INFO, "kspark"):
        divide(job)
    (message,) = caplog.messages
    assert message.startswith("Training on 16 examples with 2 workers, 32 examples per batch")
