"""What replicas send of a model with a large table and a frozen layer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kspark.live.run import LiveRun
from kspark.live.wire import Start, Welcome
from kspark.rounds.driver import unpacked_deltas
from kspark.rounds.task import RoundTask, outgoing, train_round
from kspark.shards import Chunk
from kspark.weights import STATE, TRAINABLE, Changes, Weight, WeightSpec
from kspark.worker.groups import Grouping, by_group, merge_group
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


@pytest.mark.parametrize(
    ("mode", "frequency", "size"),
    [
        ("asynchronous", 2, SPEC.size),
        ("hogwild", 2, SPEC.size),
        ("synchronous", 2, SPEC.size),
        ("synchronous", "batch", SPEC.trainable_size),
    ],
)
def test_live_replicas_send_the_rows_that_changed(tools, mode, frequency, size):
    task = SimpleNamespace(fit=SimpleNamespace(plan=tools.plan(mode, frequency)))
    run = LiveRun(task, MODEL, None, None, None, None, 10, Welcome(1, True, 0, Start(0)))
    given = change(size)
    sent = run.outgoing(given)
    assert sent.nbytes == BITS + 16 + 48
    packing = Changes.of(SPEC, gradients=frequency == "batch")
    assert packing.unpack(sent, np.empty(SPEC.size, "f4")).tobytes() == given.tobytes()
    full = np.ones(size, "f4")
    assert run.outgoing(full) is full


def test_gaps_that_synchronous_replicas_bring_travel_as_deltas_do(tools, monkeypatch):
    outgoing = []
    monkeypatch.setattr(LiveRun, "outgoing", lambda _, v: outgoing.append(v.tobytes()) or v)
    with tools.world([8], tools.plan("synchronous", 1), rule="elastic_average") as world:
        world.train()
        sent = [vector.tobytes() for vector in world.runs[0].client.sent]
    assert outgoing == sent
    assert len(sent) == 2 * 2


def test_rounds_bring_the_rows_that_changed(tools):
    plan = tools.plan("synchronous", "epoch")
    task = RoundTask(FitTask("fit", plan, {0: 8}, 1), 0, None, False)
    sent = outgoing(task, MODEL, None, change())
    assert sent.nbytes == BITS + 16 + 48
    results = [ShardResult(0, 8, sent), ShardResult(1, 4, change())]
    found = unpacked_deltas(SimpleNamespace(plan=plan, spec=MODEL), results)
    assert [(d.shard, d.num_examples) for d in found] == [(0, 8), (1, 4)]
    assert [d.vector.tobytes() for d in found] == [change().tobytes()] * 2


def test_groups_add_up_what_changed_and_send_no_more(tools):
    """Means are those of whole deltas; a shard of which nothing is left out is one of them."""
    packing, plan = Changes.of(SPEC), tools.plan("synchronous", "epoch")
    random = np.random.default_rng(0)
    deltas_ = [change() * np.float32(n) for n in range(3)] + [random.normal(size=SPEC.size)]
    deltas_ = [delta.astype("f4") for delta in deltas_]
    grouping = Grouping.of(dict.fromkeys(range(4), 3))
    brought = []
    for pack in (packing.pack, np.array):
        results = [ShardResult(i, 3, pack(delta)) for i, delta in enumerate(deltas_)]
        pairs = list(by_group(grouping, 0, results))
        means = [
            next(merge_group(grouping, packing, i, [pair for pair in pairs if pair[0] == i]))
            for i in (0, 1)
        ]
        brought.append([plan.unpacked(mean.delta, SPEC).tobytes() for mean in means])
        assert [mean.delta.nbytes for mean in means] == [BITS + 16 + 48, SPEC.nbytes]
    first = (deltas_[0].astype("f8") * 3 + deltas_[1].astype("f8") * 3) / 6
    assert brought[0] == brought[1]
    assert brought[0][0] == first.astype("f4").tobytes()


@pytest.mark.parametrize(("weights_bytes", "received"), [(None, 12), (7, 7)])
def test_rounds_count_the_bytes_that_the_weights_take(
    tools, tmp_path, monkeypatch, weights_bytes, received
):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    (shard,) = spool_shard("fit", 0, iter([Chunk([np.arange(1, 6)])]))
    fit = FitTask("fit", tools.plan("synchronous", "epoch"), {0: 5}, 1)
    task = RoundTask(fit, 0, None, False, weights_bytes)
    (result,) = train_round(task, tools.spec(), np.zeros(3, "f4"), 0, iter([shard]))
    assert (result.facts.bytes_sent, result.facts.bytes_received) == (12, received)
