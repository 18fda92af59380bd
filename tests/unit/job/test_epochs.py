"""What the driver reports and logs for each epoch; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark.job import epochs
from kspark.job.epochs import note_epoch
from kspark.job.report import EpochFacts


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
            end_epoch=lambda *_: note("end"),
        ),
        aggregator=SimpleNamespace(rule_state=dict, settled=lambda: None),
        last_epoch=lambda epoch: False,
    )
    monkeypatch.setattr(epochs, "take_state", lambda *_: note("take"))
    monkeypatch.setattr(epochs, "validate", lambda *_: note("validate", {}))
    epochs.close_epoch(fit, 3, [], 8, (5, 4))
    taken = [("take", (5, 4))] if stateful else []
    assert order == [*taken, ("validate", (5, 4)), ("end", (5, 4))]
    epochs.close_epoch(fit, 4, [], 8)
    assert replica.counters == (5, 4)  # nobody reported any
