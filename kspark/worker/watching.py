"""Watch the tasks of a fit: what ends a worker that hangs, see `kspark.cluster.watch`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from kspark.cluster.watch import Watch
from kspark.replica import ReplicaSpec
from kspark.shards import ShardHandle
from kspark.worker.inference import InferenceTask, evaluate_shard
from kspark.worker.state import ShardState, note_of
from kspark.worker.tasks import FitTask, Result, guarded


def watched(fit: FitTask, handle: ShardHandle) -> Watch:
    """Return the watch of a task that trains a shard."""
    plan, name = fit.plan, f"shard {handle.index} on {handle.host}"
    return Watch(name, plan.timeout, plan.step_timeout, note_of(ShardState.of(fit.fit_id, handle)))


def validate_shards(
    timeout: float,
    task: InferenceTask,
    spec: ReplicaSpec,
    vector: np.ndarray,
    index: int,
    handles: Iterable[bytes],
) -> Iterator[Result]:
    """Evaluate the shards of one partition, on their rows from `num_train` on."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        with Watch(f"shard {handle.index} on {handle.host}, which validates,", timeout, None):
            evaluate = partial(evaluate_shard, task, spec, vector, handle)
            result = guarded(handle.index, evaluate, handle)
        yield result
