"""Synchronous training over rounds: one ordinary Spark job per epoch.

No server, no port, no co-scheduling: Spark's retries, locality, dynamic
allocation and waves of tasks all apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kspark.aggregator import Delta
from kspark.cluster.bootstrap import Shipped, ship
from kspark.cluster.spark_job import JobLostError
from kspark.job.collecting import Again, done
from kspark.job.epochs import close_epoch, note_epoch, open_epoch
from kspark.job.fit import Fit
from kspark.job.groups import collect_groups, grouping_of, missing_of
from kspark.job.optimizer_state import states_of, take_state
from kspark.job.report import EpochFacts, worker_figures
from kspark.rounds.task import RoundTask, train_round
from kspark.worker.groups import Grouping, GroupResult
from kspark.worker.tasks import ShardResult, State


def train_rounds(fit: Fit) -> None:
    """Every epoch: all shards train from the same weights, their deltas are merged."""
    for epoch in range(fit.plan.initial_epoch, fit.plan.epochs):
        open_epoch(fit, epoch)
        brought = run_round(fit, epoch)
        if finish_round(fit, epoch, brought):
            break
    take_state(fit, brought.states, epoch)


def finish_round(fit: Fit, epoch: int, brought: Round, **more: Any) -> bool:
    """Merge what a round brought; then figures, validation and callbacks of its epoch.

    Args:
        fit: `Fit`.
        epoch: Integer.
        brought: `Round`; its deltas are gone afterwards.
        **more: What else `EpochFacts` shall tell.

    Returns:
        Boolean, whether training shall stop.
    """
    fit.aggregator.merge(brought.deltas, num_steps=brought.num_steps)
    brought.deltas.clear()  # the next round's need the room
    rate = fit.learning_rate(epoch)
    note_epoch(fit, EpochFacts(epoch, 1, brought.workers, learning_rate=rate, **more))
    metrics = [result.metrics for result in brought.results]
    trained = sum(result.num_examples for result in brought.results)
    return close_epoch(fit, epoch, metrics, trained)


def run_round(fit: Fit, epoch: int) -> Round:
    """One epoch on all shards, again if Spark lost the job or a host its files.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
    """
    what, grouping = f"kspark: epoch {epoch + 1}", grouping_of_round(fit)
    with fit.sent_weights.share(fit.aggregator.weights) as (vector, nbytes):
        # Groups bring state in a job of its own: with deltas it would make too long records.
        wants_state = fit.last_epoch(epoch) and grouping is None
        task = RoundTask(fit.task(), epoch, fit.learning_rate(epoch), wants_state, nbytes)
        shipped = ship(train_round, task, shared=(fit.shared_spec, vector))
        if grouping is not None:
            return run_grouped_round(fit, grouping, shipped, what)
        return round_of(fit, fit.collect(fit.train, shipped, what))


def round_of(fit: Fit, results: Sequence[ShardResult]) -> Round:
    """A round of which every delta came to the driver."""
    return Round(
        [replace(result, delta=None, state=None) for result in results],
        deltas(fit, results),
        states_of(fit, results),
    )


def deltas(fit: Fit, results: Sequence[ShardResult]) -> list[Delta]:
    """What the shards brought, as it was before it travelled."""
    spec = fit.spec.weights
    return [
        Delta(r.shard, fit.plan.unpacked(r.delta, spec), r.num_examples)
        for r in results
        if r.delta is not None
    ]


def grouping_of_round(fit: Fit) -> Grouping | None:
    """As `grouping_of`, and `None` if the fit's rule needs every delta."""
    grouping = grouping_of(fit)
    return grouping if grouping and fit.aggregator.optimizer.averages_deltas else None


def run_grouped_round(fit: Fit, grouping: Grouping, task: Shipped, description: str) -> Round:
    """One epoch on all shards, again if Spark lost the job or a host its files.

    Groups that are whole are kept. All shards of the others train again, each from its state
    of the epoch before, so that the sums are the same bytes.

    Args:
        fit: `Fit`.
        grouping: `Grouping`.
        task: `Shipped`, called with partition index and handles.
        description: String, for Spark's UI.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    again = Again(fit.train, fit.plan.max_failures)
    whole: dict[int, GroupResult] = {}
    wanted = list(range(len(grouping.groups)))
    while wanted:
        try:
            groups = collect_groups(fit, grouping, task, description, wanted)
        except JobLostError as error:
            again.lost(error)
            continue
        done([part for group in groups for part in group.parts])
        missing = {group.number: missing_of(group) for group in groups}
        whole |= {group.number: group for group in groups if not missing[group.number]}
        wanted = [number for number in wanted if number not in whole]
        if wanted:
            again.missing([part for parts in missing.values() for part in parts])
    return round_of_groups(fit, [whole[number] for number in sorted(whole)])


def round_of_groups(fit: Fit, groups: list[GroupResult]) -> Round:
    """What groups brought, as what shards bring. State is fetched by itself."""
    return Round(
        done([part for group in groups for part in group.parts]),
        [
            Delta(g.number, fit.plan.unpacked(g.delta, fit.spec.weights), g.delta_examples)
            for g in groups
            if g.delta is not None
        ],
        [],
    )


@dataclass(frozen=True)
class Round:
    """What one round brought.

    Attributes:
        results: List of `ShardResult`, one per shard with examples, in their order.
        deltas: List of `Delta` to merge: one per shard, or per group of shards.
        states: List of pairs: a replica's state, and the training examples behind it. Empty
            if none was asked for.
    """

    results: list[ShardResult]
    deltas: list[Delta]
    states: list[tuple[State, int]]

    @property
    def workers(self) -> tuple[dict[str, Any], ...]:
        """Figures of the shards, for `EpochFacts`."""
        return tuple(worker_figures(r.shard, r.facts) for r in self.results if r.facts)

    @property
    def num_steps(self) -> int:
        """Local batches behind the longest delta."""
        return max(result.facts.batches for result in self.results if result.facts)
