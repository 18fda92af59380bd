"""How the driver gets the files of the shards for a checkpoint; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kspark.job import checkpoints
from kspark.job.checkpoints import facts_of_epoch, files_of_shards
from kspark.job.report import EpochFacts
from kspark.worker.tasks import ShardResult

STATE = {"state": np.zeros(1, np.uint8)}


def a_fit(num_shards, live=None):
    counts = dict.fromkeys(range(num_shards), 5) | {num_shards: 0}
    plan = SimpleNamespace(max_failures=2)
    return SimpleNamespace(
        spark=None, train=None, plan=plan, fit_id="fit", num_train=counts, keep_live=lambda _: live
    )


@pytest.fixture
def asked(monkeypatch):
    """The shards of each job. Shard 2 has lost its state."""
    jobs = []

    def collect_shards(*_, wanted):
        jobs.append(wanted)
        return [ShardResult(s, 5, files={} if s == 2 else STATE) for s in wanted]

    monkeypatch.setattr(checkpoints, "collect_shards", collect_shards)
    monkeypatch.setattr(checkpoints, "engine_of", lambda _: SimpleNamespace(groups=True))
    return jobs


def test_the_driver_holds_the_files_of_a_few_shards_at_a_time(asked, caplog):
    found = files_of_shards(a_fit(40), 3)
    assert next(found)[0] == 0
    assert asked == [list(range(16))]
    assert [shard for shard, _ in found] == list(range(1, 40))
    assert asked[1:] == [list(range(16, 32)), list(range(32, 40))]
    assert caplog.messages == ["The optimizer state of shard 2 is lost, and not in the checkpoint."]


def test_spark_connect_runs_all_shards_at_once(asked, monkeypatch):
    monkeypatch.setattr(checkpoints, "engine_of", lambda _: SimpleNamespace(groups=False))
    assert len(list(files_of_shards(a_fit(40), 3))) == 40
    assert asked == [list(range(40))]


def test_tasks_that_run_bring_the_files_themselves(asked):
    fit = a_fit(2, [ShardResult(0, 5, files=STATE), ShardResult(1, 5, files={})])
    assert list(files_of_shards(fit, 3)) == [(0, STATE), (1, {})]
    assert asked == []


@pytest.mark.parametrize("rate", [0.5, None, (0.5, None)])
def test_the_report_of_an_epoch_comes_back_from_json(rate):
    facts = EpochFacts(3, 2, ({"shard": 0, "host": "a"},), (1, 2), rate, (4,), ())
    listed = {
        "epoch": 3,
        "merges": 2,
        "workers": [{"shard": 0, "host": "a"}],
        "staleness": [1, 2],
        "stragglers": [4],
        "late": [],
        "learning_rate": list(rate) if isinstance(rate, tuple) else rate,
    }
    assert facts_of_epoch(listed) == facts
