"""Synchronous training over rounds: one ordinary Spark job per epoch.

No server, no port, no co-scheduling: Spark's retries, locality, dynamic
allocation and waves of tasks all apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kspark.aggregator import Delta
from kspark.bootstrap import ship
from kspark.job.fit import (
    Fit,
    close_epoch,
    note_epoch,
    open_epoch,
)
from kspark.job.optimizer_state import states_of, take_state
from kspark.job.shard_results import Round
from kspark.job.tree import tree_of, tree_round
from kspark.report import EpochFacts
from kspark.worker import rounds as rounds_worker
from kspark.worker.results import RoundResult
from kspark.worker.rounds import RoundTask


def train_rounds(job: Fit) -> None:
    """Every epoch: all shards train from the same weights, their deltas are merged."""
    for epoch in range(job.plan.initial_epoch, job.plan.epochs):
        open_epoch(job, epoch)
        brought = run_round(job, epoch)
        if finish_round(job, epoch, brought):
            break
    take_state(job, brought.states, epoch)


def finish_round(job: Fit, epoch: int, brought: Round, **more: Any) -> bool:
    """Merge what a round brought; then figures, validation and callbacks of its epoch.

    Args:
        job: `Fit`.
        epoch: Integer.
        brought: `Round`; its deltas are gone afterwards.
        **more: What else `EpochFacts` shall tell.

    Returns:
        Boolean, whether training shall stop.
    """
    job.aggregator.merge(brought.deltas, num_steps=brought.num_steps)
    brought.deltas.clear()  # the next round's need the room
    rate = job.learning_rate(epoch)
    note_epoch(job, EpochFacts(epoch, 1, brought.workers, learning_rate=rate, **more))
    metrics = [result.metrics for result in brought.results]
    trained = sum(result.num_examples for result in brought.results)
    return close_epoch(job, epoch, metrics, trained)


def run_round(job: Fit, epoch: int) -> Round:
    """One epoch on all shards, again if Spark lost the job or a host its files.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
    """
    what, grouping = f"kspark: epoch {epoch + 1}", tree_of(job)
    with job.sent_weights.share(job.aggregator.weights) as (vector, nbytes):
        # Groups bring state in a job of its own: with deltas it would make too long records.
        wants_state = job.last_epoch(epoch) and grouping is None
        task = RoundTask(job.task(), epoch, job.learning_rate(epoch), wants_state, nbytes)
        shipped = ship(rounds_worker.train_round, task, shared=(job.shared_spec, vector))
        if grouping is not None:
            return tree_round(job, grouping, shipped, what)
        return round_of(job, job.collect(job.train, shipped, what))


def round_of(job: Fit, results: Sequence[RoundResult]) -> Round:
    """A round of which every delta came to the driver."""
    return Round(
        [replace(result, delta=None, state=None) for result in results],
        deltas(job, results),
        states_of(job, results),
    )


def deltas(job: Fit, results: Sequence[RoundResult]) -> list[Delta]:
    """What the shards brought, as it was before it travelled."""
    spec = job.spec.weights
    return [
        Delta(r.shard, job.plan.unpacked(r.delta, spec), r.num_examples)
        for r in results
        if r.delta is not None
    ]
