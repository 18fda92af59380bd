"""What a task does in a round of the default mode: train its shard for one epoch.

Compare the inner loop of `examples/federated_averaging.py`. A task sets the replica to the global
weights and to the shard's own optimizer state, trains on every row once, saves the state beside
the shard's files, and returns the delta: new minus old weights.

An exception of the model is returned as a `Failure`, so that Spark does not repeat a mistake four
times. Other errors, such as a lost connection or a killed process, fail the task, and Spark
retries it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kspark.cluster.activity import FILES, doing
from kspark.cluster.failures import lost_too_often
from kspark.cluster.watch import last_words
from kspark.plan import known
from kspark.replica import ReplicaSpec
from kspark.shards import LearningRate, Shard, ShardHandle, Usage
from kspark.weights import compute_delta
from kspark.worker.inference import check_window
from kspark.worker.kept_files import files_in
from kspark.worker.own_weights import RoundWeights
from kspark.worker.progress import Reporter
from kspark.worker.reading import EpochRows, examples_in
from kspark.worker.state import ShardState, Tries, note_of, replica_for
from kspark.worker.tasks import (
    STATELESS,
    FitTask,
    MissingShard,
    Result,
    ShardResult,
    check_finite,
    facts_of,
    guarded,
    state_of,
    training_rows,
)
from kspark.worker.watching import watched

if TYPE_CHECKING:
    from kspark.replica import Replica


@dataclass(frozen=True)
class RoundTask:
    """What the tasks of a round need.

    Attributes:
        fit: `FitTask`.
        epoch: Integer, the epoch that this round trains.
        learning_rate: `LearningRate` to set. `None` keeps the optimizer's schedule.
        wants_state: Boolean, whether to return the replica's optimizer state too.
        weights_bytes: Integer, size of the weights as sent, in bytes. `None` means that all
            weights were sent.
        counters: Tuple of integers, the optimizer's step counters to set. `None` keeps those of the
            shard.
        counts_deaths: Boolean, whether a process that dies counts as a failure of the shard.
            Defaults to `True`. In a long job, the driver ends healthy processes, too.
    """

    fit: FitTask
    epoch: int
    learning_rate: LearningRate
    wants_state: bool
    weights_bytes: int | None = None
    counters: tuple[int, ...] | None = None
    counts_deaths: bool = True


def train_round(
    task: RoundTask, spec: ReplicaSpec, vector: np.ndarray, index: int, handles: Iterable[bytes]
) -> Iterator[Result]:
    """Train the shard of a partition for one epoch from the weights in `vector`.

    Args:
        task: `RoundTask`.
        spec: `ReplicaSpec` of the model.
        vector: Vector of the global weights.
        index: Integer, the partition.
        handles: Iterable of the partition's shard handles, as JSON.

    Yields:
        `ShardResult`, `MissingShard` or `Failure`, one per shard handle.
    """
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        with watched(task.fit, handle):
            train = partial(train_shard, task, spec, vector, handle)
            result = guarded(handle.index, train, handle)
        yield result


def train_shard(
    task: RoundTask,
    spec: ReplicaSpec,
    vector: np.ndarray,
    handle: ShardHandle,
    reporter: Reporter | None = None,
) -> Result:
    """Train one shard for one epoch.

    Args:
        task: `RoundTask`.
        spec: `ReplicaSpec` of the model.
        vector: Vector of the global weights.
        handle: `ShardHandle`.
        reporter: `Reporter` to the driver. Defaults to `None`: nothing is reported.

    Returns:
        `ShardResult` with the delta, the metric state and figures. `Failure` if too many
        processes died while they trained this epoch. `MissingShard` if the driver has a state of
        the shard that is not here.
    """
    fit = task.fit
    if not training_rows(fit, handle):
        return ShardResult(handle.index, 0)
    started = time.perf_counter()
    with doing(FILES):
        shard = Shard.open(handle)
        state = ShardState(fit.fit_id, shard)
        if not state.has_since(fit.kept.get(handle.index), task.epoch):
            return MissingShard.of(handle, STATELESS)
        tries = Tries(state, task.epoch, fit.plan.max_failures)
    if tries.exhausted:
        return lost_too_often(handle.index, tries.count, last_words(note_of(state)))
    own_reporter = reporter is None
    reporter = Reporter.of(fit, handle.index) if reporter is None else reporter
    with tries if task.counts_deaths else nullcontext():
        result = train_open_shard(task, spec, vector, shard, state, reporter, started)
        if own_reporter:  # In a long job, callbacks go on with the next epoch.
            reporter.callbacks.end()
    return result


def train_open_shard(
    task: RoundTask,
    spec: ReplicaSpec,
    vector: np.ndarray,
    shard: Shard,
    state: ShardState,
    reporter: Reporter,
    started: float,
) -> ShardResult:
    """Train a shard whose files are here. Arguments as in `train_shard`, and:

    Args:
        shard: `Shard`.
        state: `ShardState` of the shard.
        started: Float, when the task began, in seconds of `time.perf_counter`.
    """
    fit, num_examples = task.fit, training_rows(task.fit, shard.handle)
    replica = replica_for(spec, fit.fit_id, fit.threads)
    replica.alone = fit.alone
    numbers = (task.epoch, fit.plan, known(fit.steps(shard.index).batches), fit.resumed)
    since = fit.oldest_state(shard.index, task.epoch)
    with doing(FILES):
        state_kept = state.restore(replica, *numbers, since=since)
    # With `ElasticAverage`, a replica starts from weights of its own.
    own = RoundWeights.of(
        fit, spec.weights, state.folder, num_examples, task.epoch, replica.projection
    )
    base = vector if own is None else own.restore(vector)
    replica.set_vector(base)
    if task.learning_rate is not None:
        replica.learning_rate = task.learning_rate
    if task.counters is not None:
        replica.counters = task.counters
    rows = train_epoch(replica, shard, fit, task.epoch, reporter)
    with doing(FILES):
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
        shard.index,
        rows.num_examples,
        delta,
        replica.metric_state(),
        facts_of(rows.batches, rows.num_examples, state_kept, usage),
        state=state_of(replica) if task.wants_state else None,
        counters=replica.counters,
        files=files_in(state.folder, task.epoch) if fit.travels else {},
    )


def train_epoch(
    replica: Replica, shard: Shard, fit: FitTask, epoch: int, reporter: Reporter | None = None
) -> EpochRows:
    """Train on the rows of an epoch, in batches. Metrics are reset first.

    Returns:
        `EpochRows` that were read to their end.

    Raises:
        NonFiniteLossError: If the loss is NaN or infinite, and the plan says to raise.
    """
    plan, reporter = fit.plan, reporter or Reporter()
    replica.reset_metrics()
    replica.seed_backend(plan.backend_seed(shard.index, epoch))
    reporter.callbacks.attach(replica)
    rows = EpochRows(fit, shard, epoch, partial(check_window, replica))
    reporter.begin(epoch, rows.num_examples)
    for window in rows:
        reporter.total = rows.num_examples
        for start, stop in reporter.pieces(0, plan.batches(window.num_examples)):
            replica.train(window, plan.batch_size, start, stop)
            reporter.trained(replica, examples_in(window, plan.batch_size, start, stop))
        check_finite(replica, plan, epoch)
    reporter.callbacks.end_epoch()
    return rows


def outgoing(
    task: RoundTask, spec: ReplicaSpec, state: ShardState, delta: np.ndarray
) -> np.ndarray:
    """A delta as it travels. What packing has lost stays with the shard, for its next epoch."""
    packer = task.fit.plan.packing(spec.weights).packer()
    if packer.residual is None:
        return packer.pack(delta)
    since = task.fit.oldest_state(state.index, task.epoch)
    packer.restore(state.residual_before(task.epoch, since))
    payload = packer.pack(delta)
    state.save_residual(packer.residual, task.epoch)
    return payload
