"""Rounds with compression: payloads, residuals, and repeated rounds."""

from __future__ import annotations

import numpy as np
import pytest

from kspark.aggregator import Delta
from kspark.compression import TopK
from kspark.rounds.driver import unpacked_deltas
from kspark.rounds.task import RoundTask, train_round
from kspark.shards import Chunk
from kspark.worker.spooling import spool_shard
from kspark.worker.tasks import FitTask

HALF = TopK(0.5)  # of the two trainable weights of these tests, one


@pytest.fixture
def shard(tmp_path, monkeypatch):
    """The handle of a shard of the rows 1 to 5, whose delta is (5, 15) at batch size 4."""
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    (document,) = spool_shard("fit", False, 0, iter([Chunk([np.arange(1, 6)])]))
    return document


def round_of(tools, shard, epoch, **plan):
    made = tools.plan("synchronous", "epoch", epochs=9, **plan)
    task = RoundTask(FitTask("fit", made, {0: 5}, 1), epoch, None, False)
    (result,) = train_round(task, tools.spec(), np.zeros(3, "f4"), 0, iter([shard]))
    return result


def driver(tools, **plan):
    class Job:
        pass

    Job.plan, Job.spec = tools.plan("synchronous", "epoch", **plan), tools.spec()
    return Job


def test_rounds_send_what_the_round_before_left_over(tools, shard):
    job = driver(tools, compression=HALF)
    got = []
    for epoch in range(3):
        result = round_of(tools, shard, epoch, compression=HALF)
        assert (result.delta.dtype, result.delta.nbytes) == (np.uint8, 4 + 8)
        assert (result.facts.bytes_sent, result.facts.bytes_received) == (12, 12)
        (delta,) = unpacked_deltas(job, [result])
        assert (delta.shard, delta.num_examples) == (0, 5)
        got.append(delta.vector.tolist())
    # (5, 15) each time, of which the larger one is sent; 2 batches are the state. In the third
    # round 5 has become 15 too, and of equals the first one is sent.
    assert got == [[0, 15, 2], [0, 15, 2], [15, 0, 2]]
    (delta,) = unpacked_deltas(job, [round_of(tools, shard, 3, compression=HALF)])
    assert delta.vector.tolist() == [0, 30, 2]


def test_a_round_that_is_tried_again_sends_the_same_bytes(tools, shard):
    round_of(tools, shard, 0, compression=HALF)
    first = round_of(tools, shard, 1, compression=HALF)
    again = round_of(tools, shard, 1, compression=HALF)
    assert first.delta.tobytes() == again.delta.tobytes()


def test_a_round_without_compression_brings_the_delta(tools, shard):
    result = round_of(tools, shard, 0)
    assert result.delta.tolist() == [5, 15, 2]
    assert (result.facts.bytes_sent, result.facts.bytes_received) == (12, 12)
    (delta,) = unpacked_deltas(driver(tools), [result])
    assert isinstance(delta, Delta)
    assert delta.vector is result.delta


def test_old_residuals_are_removed(tools, shard, tmp_path):
    for epoch in range(4):
        round_of(tools, shard, epoch, compression=HALF)
    names = sorted(path.name for path in tmp_path.rglob("*.residual"))
    assert names == ["2.residual", "3.residual"]
    assert list(tmp_path.rglob(".residual*")) == []
