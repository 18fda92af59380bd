"""What the driver reports and logs for each epoch; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

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
