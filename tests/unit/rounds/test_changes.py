"""Rounds send only the blocks that changed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kspark.rounds.driver import unpacked_deltas
from kspark.rounds.task import RoundTask, outgoing, train_round
from kspark.shards import Chunk
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec
from kspark.worker.spooling import spool_shard
from kspark.worker.tasks import FitTask, ShardResult

SPEC = WeightSpec(
    (
        Weight("embeddings", (5000, 4), "float32", TRAINABLE),
        Weight("kernel", (4, 3), "float32", TRAINABLE),
        Weight("frozen", (9000,), "float32", STATE),
    )
)
MODEL = SimpleNamespace(weights=SPEC)
BITS = 632  # 5,001 blocks


def change(size=SPEC.size):
    made = np.zeros(size, "f4")
    made[[400, 20_001]] = [np.nan, -0.5]
    return made


def test_rounds_bring_the_rows_that_changed(tools):
    plan = tools.plan("synchronous", "epoch")
    task = RoundTask(FitTask("fit", plan, {0: 8}, 1), 0, None, False)
    sent = outgoing(task, MODEL, None, change())
    assert sent.nbytes == BITS + 16 + 48
    results = [ShardResult(0, 8, sent), ShardResult(1, 4, change())]
    found = unpacked_deltas(SimpleNamespace(plan=plan, spec=MODEL), results)
    assert [(d.shard, d.num_examples) for d in found] == [(0, 8), (1, 4)]
    assert [d.vector.tobytes() for d in found] == [change().tobytes()] * 2


@pytest.mark.parametrize(("weights_bytes", "received"), [(None, 12), (7, 7)])
def test_rounds_count_the_bytes_that_the_weights_take(
    tools, tmp_path, monkeypatch, weights_bytes, received
):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    (shard,) = spool_shard("fit", False, 0, iter([Chunk([np.arange(1, 6)])]))
    fit = FitTask("fit", tools.plan("synchronous", "epoch"), {0: 5}, 1)
    task = RoundTask(fit, 0, None, False, weights_bytes)
    (result,) = train_round(task, tools.spec(), np.zeros(3, "f4"), 0, iter([shard]))
    assert (result.facts.bytes_sent, result.facts.bytes_received) == (12, received)
