"""What the driver reports and logs for each epoch; without Spark."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kspark.errors import NonFiniteError
from kspark.job import epochs
from kspark.job.epochs import note_epoch
from kspark.job.progress import Progress
from kspark.job.report import EpochFacts
from kspark.live.coordinator.running import Running
from kspark.live.wire.reports import ProgressReport
from kspark.plan import TrainingPlan


def test_lost_optimizer_state_is_logged(caplog):
    fit = SimpleNamespace(epochs=[])
    workers = [{"shard": i, "state_kept": i != 3} for i in range(5)]
    with caplog.at_level("WARNING", "kspark"):
        note_epoch(fit, EpochFacts(0, 1, tuple(workers[:3])))
        assert not caplog.messages
        note_epoch(fit, EpochFacts(1, 1, tuple(workers)))
    assert [facts.epoch for facts in fit.epochs] == [0, 1]
    (message,) = caplog.messages
    assert message.startswith("Epoch 2: ") and "shards [3] are gone" in message


@pytest.mark.parametrize("stateful", [False, True])
def test_callbacks_see_the_step_counters_of_the_replicas(monkeypatch, stateful):
    """They are there before validation, and before states are taken, which have them, too."""
    replica, order = SimpleNamespace(counters=(0, 0)), []

    def note(what, result=None):
        order.append((what, replica.counters))
        return result

    fit = SimpleNamespace(
        monitor=SimpleNamespace(
            replica=replica,
            needs_optimizer_state=stateful,
            stopped=False,
            logs_of=lambda metrics: {},
            end_batches=lambda *_: note("batches"),
            end_epoch=lambda *_: note("end"),
        ),
        aggregator=SimpleNamespace(rule_state=dict, settled=lambda: None),
        last_epoch=lambda epoch: False,
        checkpoints=None,
        progress=Progress(0, 5, 0),
        steps=1,
        plan=SimpleNamespace(on_nonfinite="ignore"),
    )
    monkeypatch.setattr(epochs, "take_state", lambda *_: note("take"))
    monkeypatch.setattr(epochs, "validate", lambda *_: note("validate", {}))
    epochs.close_epoch(fit, 3, [], 8, (5, 4))
    taken = [("take", (5, 4))] if stateful else []
    assert order == [*taken, ("batches", (5, 4)), ("validate", (5, 4)), ("end", (5, 4))]
    epochs.close_epoch(fit, 4, [], 8)
    assert replica.counters == (5, 4)  # nobody reported any


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_trainable_weights_must_be_finite(wrong):
    weights = np.full(5, 3e38, np.float32)  # Their sum is too large for the dtype.
    plan = TrainingPlan.create()
    fit = SimpleNamespace(
        plan=plan,
        aggregator=SimpleNamespace(settled=lambda: weights),
        spec=SimpleNamespace(weights=SimpleNamespace(trainable_size=4)),
    )
    weights[4] = wrong
    epochs.check_weights(fit, 0)
    weights[1] = wrong
    with pytest.raises(NonFiniteError, match="Merged weights .* epoch 1.*\nHint"):
        epochs.check_weights(fit, 0)
    fit.plan = replace(plan, on_nonfinite="ignore")
    epochs.check_weights(fit, 0)


class Opened:
    """A fit whose epochs begin; the model that a callback changes has two counters."""

    def __init__(self, in_rounds):
        self.counters = (0, 0)
        self.shown_counters, self.new_counters = (0, 0), None
        self.vocabularies, self.resumed, self.progress = None, False, Progress(0, 5, 0)
        self.plan = SimpleNamespace(in_rounds=in_rounds, initial_epoch=2)
        self.monitor = SimpleNamespace(replica=self, begin_epoch=lambda epoch: None)
        self.spec = SimpleNamespace(renewed=lambda model: ("renewed", model.counters))
        self.model = self
        self.shared = []
        self.share = self.shared.append

    def open(self, epoch, counters):
        self.counters = counters
        epochs.open_epoch(self, epoch)
        return self.new_counters


def test_rounds_get_the_counters_that_callbacks_set_once():
    fit = Opened(in_rounds=True)
    found = [fit.open(*given) for given in ((2, (0, 0)), (3, (5, 0)), (4, (5, 0)), (5, (0, 0)))]
    assert found == [None, (5, 0), None, (0, 0)]
    assert fit.shared == []


def test_a_live_fit_begins_with_the_counters_that_callbacks_set_and_refuses_later_ones():
    fit = Opened(in_rounds=False)
    fit.open(2, (5, 0))
    assert fit.shared == [("renewed", (5, 0))]
    fit.open(3, (5, 0))
    with pytest.raises(ValueError, match="new step counters before epoch 5"):
        fit.open(4, (6, 0))


@pytest.mark.parametrize(
    ("mode", "frequency", "expected"),
    [("synchronous", "epoch", [None, None]), ("asynchronous", "epoch", [7.0, 8.0])],
)
def test_hooks_of_batches_see_the_latest_weights_that_the_driver_has(mode, frequency, expected):
    """The mark at the end of the epoch is that of `close_epoch`."""
    passed, running = [], Running(2)
    aggregator = SimpleNamespace(weights=np.full(3, 7.0, "f4"))
    aggregator.pull = lambda out: np.copyto(out, aggregator.weights)

    def pass_batches(done, vector, logs):
        passed.append((done, None if vector is None else float(vector[0]), logs))
        aggregator.weights += 1

    model = SimpleNamespace(metrics_variables=[np.zeros(2)])
    monitor = SimpleNamespace(
        has_batch_hooks=True,
        pass_batches=pass_batches,
        replica=SimpleNamespace(model=model),
        logs_of=lambda states: {"number": len(states)},
    )
    plan = TrainingPlan.create(mode=mode, frequency=frequency, callbacks_every=2)
    fit = SimpleNamespace(
        plan=plan, steps=6, monitor=monitor, aggregator=aggregator, progress=Progress(0, 5, 0)
    )
    for shard, batches, shape in [(0, 2, 2), (1, 2, 3), (0, 4, 2)]:
        report = ProgressReport(1, 8 * batches, 99, batches)
        running.take(shard, report, [np.zeros(shape)])
    epochs.run_batch_hooks(fit, 1, running)
    # The metrics of shard 1 are not those of the model.
    assert passed == [
        (2, expected[0], {"number": 1}),
        (4, expected[1], {"number": 1}),
    ]
    monitor.has_batch_hooks = False
    running.take(0, ProgressReport(2, 16, 99, 2), [])
    epochs.run_batch_hooks(fit, 2, running)
    assert len(passed) == 2
