"""Groups merge and send only the blocks that changed."""

from __future__ import annotations

import numpy as np

from kspark.weights import STATE, TRAINABLE, Changes, Weight, WeightSpec
from kspark.worker.groups import Grouping, by_group, merge_group
from kspark.worker.tasks import ShardResult

SPEC = WeightSpec(
    (
        Weight("embeddings", (5000, 4), "float32", TRAINABLE),
        Weight("kernel", (4, 3), "float32", TRAINABLE),
        Weight("frozen", (9000,), "float32", STATE),
    )
)
BITS = 632  # 5,001 blocks


def change(size=SPEC.size):
    made = np.zeros(size, "f4")
    made[[400, 20_001]] = [np.nan, -0.5]
    return made


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
