"""Synchronous training over rounds: one ordinary Spark job per epoch.

No server, no port, no co-scheduling: Spark's retries, locality, dynamic
allocation and waves of tasks all apply.
"""

from __future__ import annotations

from collections.abc import Sequence

from kspark.aggregator import Delta
from kspark.bootstrap import ship
from kspark.job.fit import (
    Fit,
    close_epoch,
    note_epoch,
    open_epoch,
    take_state,
)
from kspark.report import EpochFacts
from kspark.worker import rounds as rounds_worker
from kspark.worker.results import RoundResult
from kspark.worker.rounds import RoundTask


def train_rounds(job: Fit) -> None:
    """Every epoch: all shards train from the same weights, their deltas are merged."""
    for epoch in range(job.plan.initial_epoch, job.plan.epochs):
        open_epoch(job, epoch)
        results = run_round(job, epoch)
        job.aggregator.merge(
            deltas(job, results),
            num_steps=max(r.facts["batches"] for r in results),
        )
        workers = tuple({"shard": r.shard, **r.facts} for r in results)
        note_epoch(job, EpochFacts(epoch, 1, workers, learning_rate=job.learning_rate(epoch)))
        if close_epoch(job, epoch, [r.metrics for r in results]):
            break
    take_state(job, results, epoch)


def deltas(job: Fit, results: Sequence[RoundResult]) -> list[Delta]:
    """What the shards brought, as it was before it travelled."""
    spec = job.spec.weights
    return [
        Delta(r.shard, job.plan.unpacked(r.delta, spec), r.num_examples)
        for r in results
        if r.delta is not None
    ]


def run_round(job: Fit, epoch: int) -> list[RoundResult]:
    """One epoch on all shards, again if Spark lost the job or a host its files.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
    """
    with job.sent_weights.share(job.aggregator.weights) as (vector, nbytes):
        rate, last = job.learning_rate(epoch), job.last_epoch(epoch)
        task = RoundTask(job.task(), epoch, rate, last, nbytes)
        shipped = ship(rounds_worker.train_round, task, shared=(job.shared_spec, vector))
        return job.collect(job.train, shipped, f"kspark: epoch {epoch + 1}")
