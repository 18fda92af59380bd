"""Training over rounds: train a shard for an epoch, fetch its state.

A replica's exception comes back as a `Failure` *value*: Spark must not run the
same mistake four times. What is no mistake of the model's (a lost connection,
a killed process) fails the task, and Spark retries it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from kspark.cluster.failures import lost_too_often
from kspark.plan import TrainingPlan
from kspark.replica import Replica, ReplicaSpec
from kspark.shards import Shard, ShardHandle, Usage
from kspark.weights import compute_delta
from kspark.worker.own_weights import RoundWeights
from kspark.worker.state import ShardState, Tries, replica_for
from kspark.worker.tasks import (
    FitTask,
    Result,
    ShardResult,
    check_finite,
    facts_of,
    guarded,
    state_of,
    training_rows,
    weighted,
)


@dataclass(frozen=True)
class RoundTask:
    """One round of a fit.

    Attributes:
        fit: `FitTask`.
        epoch: Integer, the epoch that this round trains.
        learning_rate: Float, or `None` to leave the optimizer's schedule alone.
        wants_state: Boolean, whether the replica's optimizer state comes back too.
        weights_bytes: Integer, what the weights take to come here; `None`: all their bytes.
    """

    fit: FitTask
    epoch: int
    learning_rate: float | None
    wants_state: bool
    weights_bytes: int | None = None


def train_round(
    task: RoundTask, spec: ReplicaSpec, vector: np.ndarray, index: int, handles: Iterable[bytes]
) -> Iterator[Result]:
    """Train the shards of one partition for one epoch from the weights in `vector`."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        yield guarded(handle.index, partial(train_shard, task, spec, vector, handle), handle.host)


def train_shard(
    task: RoundTask, spec: ReplicaSpec, vector: np.ndarray, handle: ShardHandle
) -> Result:
    """Train one shard for one epoch, as its own replica."""
    fit = task.fit
    num_examples = training_rows(fit, handle)
    if not num_examples:
        return ShardResult(handle.index, 0)
    started = time.perf_counter()
    shard = Shard.open(handle)
    state = ShardState(fit.fit_id, shard)
    tries = Tries(state, task.epoch, fit.plan.max_failures)
    if tries.exhausted:
        return lost_too_often(handle.index, tries.count)
    batches = fit.plan.batches(num_examples)
    with tries:
        replica = replica_for(spec, fit.fit_id, fit.threads)
        state_kept = state.restore(replica, task.epoch, fit.plan, batches)
        own = RoundWeights.of(fit, spec.weights, state.folder, num_examples, task.epoch)
        base = vector if own is None else own.restore(vector)
        replica.set_vector(base)
        if task.learning_rate is not None:
            replica.learning_rate = task.learning_rate
        train_epoch(replica, shard, fit.plan, num_examples, task.epoch)
        state.save(replica, task.epoch)
        delta = compute_delta(replica.get_vector(), base)
        if own is not None:
            own.leave(delta, base)
            own.move(base, delta)
            own.save(base)
        delta = outgoing(task, spec, state, delta)
    received = vector.nbytes if task.weights_bytes is None else task.weights_bytes
    usage = Usage(time.perf_counter() - started, 0.0, delta.nbytes, received)
    return ShardResult(
        handle.index,
        num_examples,
        delta,
        replica.metric_state(),
        facts_of(batches, num_examples, state_kept, usage),
        state=state_of(replica) if task.wants_state else None,
    )


def outgoing(
    task: RoundTask, spec: ReplicaSpec, state: ShardState, delta: np.ndarray
) -> np.ndarray:
    """A delta as it travels. What packing has lost stays with the shard, for its next epoch."""
    packer = task.fit.plan.packing(spec.weights).packer()
    if packer.residual is None:
        return packer.pack(delta)
    packer.restore(state.residual_before(task.epoch))
    payload = packer.pack(delta)
    state.save_residual(packer.residual, task.epoch)
    return payload


def train_epoch(
    replica: Replica, shard: Shard, plan: TrainingPlan, num_examples: int, epoch: int
) -> None:
    """Every training row once, in batches, with fresh metrics."""
    replica.reset_metrics()
    rng = plan.generator(shard.index, epoch)
    for window in shard.windows(plan.batch_size, stop=num_examples, rng=rng):
        replica.train(weighted(window, plan), plan.batch_size)
        check_finite(replica, plan, epoch)
