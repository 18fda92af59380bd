"""Live replicas send only the blocks that changed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kspark.live.run import LiveRun
from kspark.live.wire import Start, Welcome
from kspark.weights import STATE, TRAINABLE, Changes, Weight, WeightSpec
from kspark.worker.tasks import FitTask

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
    task = SimpleNamespace(fit=FitTask("fit", tools.plan(mode, frequency), {0: 10}, 1))
    shard, client = SimpleNamespace(index=0), SimpleNamespace(report=None)
    run = LiveRun(task, MODEL, None, shard, None, client, 10, Welcome(1, True, 0, Start(0)))
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
