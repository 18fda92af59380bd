"""What the driver does in an epoch of the default mode: one round of federated averaging.

Compare `examples/federated_averaging.py`, which computes the same in plain Keras and NumPy. In
each round:

1. Every shard trains for one epoch from the same global weights; see `task.py`.
2. The driver collects the deltas: new minus old weights.
3. It averages the deltas by number of examples. The server optimizer applies the mean to the
   weights; the default one adds it.
4. It validates the new weights and runs the callbacks.

A round is one ordinary Spark job. There is no server and no port, and tasks need not run at the
same time: Spark's retries, locality, dynamic allocation and more shards than slots all work. Where
tasks do run at the same time, those of one long job train all epochs, which is faster; see
`long_job.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kspark.aggregator import Delta
from kspark.cluster.bootstrap import Shipped, ship
from kspark.cluster.spark_job import JobLostError, Watch
from kspark.job.collecting import Retries, shard_results
from kspark.job.epochs import close_epoch, note_epoch, open_epoch
from kspark.job.fit import Fit
from kspark.job.groups import collect_groups, delta_grouping_of, missing_of
from kspark.job.mixing import mix_rows
from kspark.job.optimizer_state import states_of, take_state
from kspark.job.placement import Placement
from kspark.job.report import EpochFacts, worker_figures
from kspark.live.wire import Order
from kspark.rounds.road import LongJobs, long_jobs
from kspark.rounds.task import RoundTask, train_round
from kspark.worker.groups import Grouping, GroupResult
from kspark.worker.tasks import ShardResult, State


@dataclass(frozen=True)
class Round:
    """What the shards returned in one round.

    Attributes:
        shards: List of `ShardResult` without deltas, one per shard with examples, by shard.
        deltas: List of `Delta` to merge: one per shard, or the mean of each group of shards.
        states: List of pairs of a replica's state and its number of training examples. Empty
            if the round did not ask for states.
    """

    shards: list[ShardResult]
    deltas: list[Delta]
    states: list[tuple[State, int]]

    @property
    def workers(self) -> tuple[dict[str, Any], ...]:
        """The figures of the shards, for `EpochFacts`."""
        return tuple(worker_figures(r.shard, r.facts) for r in self.shards if r.facts)

    @property
    def counters(self) -> tuple[int, ...]:
        """The step counters of the first shard that is not late."""
        found = (s.counters for s in self.shards if s.facts and not s.facts.rounds_late)
        return next(found, ())

    @property
    def num_steps(self) -> int:
        """The largest number of local batches that a shard trained."""
        return max(shard.facts.batches for shard in self.shards if shard.facts)


def train_rounds(fit: Fit) -> None:
    """Train all epochs of a fit, one round per epoch."""
    placement = Placement(fit)
    placement.spread()
    mix_rows(fit, fit.plan.initial_epoch)  # before the shards decide about the road
    with long_jobs(fit) as jobs:
        for epoch in range(fit.plan.initial_epoch, fit.plan.epochs):
            open_epoch(fit, epoch)
            # The tasks of a long job hold the slots that they need. One epoch is worth no spooling.
            if fit.road == "rounds" and not fit.last_epoch(epoch):
                placement.spread(jobs.end)
            mix_rows(fit, epoch, jobs.end)
            result = run_round_live(fit, epoch, jobs) or run_round(fit, epoch)
            fit.states.epoch = epoch
            merge_deltas(fit, result)
            if finish_round(fit, epoch, result):
                break
    take_state(fit, result.states, epoch)


def run_round_live(fit: Fit, epoch: int, jobs: LongJobs) -> Round | None:
    """Train every shard for one epoch in the long job.

    Returns:
        `Round`; `None` if the epoch has to be trained in a job of its own.

    Raises:
        WorkerError: If a replica failed.
    """
    rate = fit.learning_rate(epoch)
    wants_state = fit.last_epoch(epoch) or fit.monitor.needs_optimizer_state
    results = jobs.train(Order(0, "train", epoch, rate, fit.new_counters, wants_state))
    return None if results is None else round_of_shards(fit, fit.states.take(results, epoch))


def run_round(fit: Fit, epoch: int) -> Round:
    """Train every shard for one epoch in a job of its own, and collect the deltas.

    Lost jobs are submitted again. If a host lost its files, the examples are spooled again.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    description, grouping = f"kspark: epoch {epoch + 1}", delta_grouping_of(fit)
    watch = partial(fit.progress.show_tasks, epoch)
    # Groups return states in a job of their own: records with a delta and a state are too long.
    # Callbacks get the states of other epochs from a job of its own, too.
    wants_state = fit.last_epoch(epoch) and grouping is None
    with fit.sent_weights.share(fit.aggregator.weights) as (weights, nbytes):
        rate, counters = fit.learning_rate(epoch), fit.new_counters
        what = fit.task()
        if grouping is not None and fit.states.travels:
            # Files of many shards would meet in the task of a group. They are collected afterwards.
            what = replace(what, travels=False)
        task = RoundTask(what, epoch, rate, wants_state, nbytes, counters)
        shipped = ship(train_round, task, shared=(fit.shared_spec, weights))
        if grouping is None:
            found = fit.collect(fit.train, shipped, description, watch)
            return round_of_shards(fit, fit.states.take(found, epoch))
        result = run_grouped_round(fit, grouping, shipped, description, watch)
    if fit.states.travels:
        fit.states.collect(fit.train, epoch, fit.plan.max_failures)
    return result


def round_of_shards(fit: Fit, results: Sequence[ShardResult]) -> Round:
    """Return the round in which each shard returned its delta to the driver."""
    return Round(
        [replace(result, delta=None, state=None) for result in results],
        unpacked_deltas(fit, results),
        states_of(fit, results),
    )


def unpacked_deltas(fit: Fit, results: Sequence[ShardResult]) -> list[Delta]:
    """Return the deltas of the shards, as vectors."""
    spec = fit.spec.weights
    return [
        Delta(r.shard, fit.plan.unpacked(r.delta, spec), r.num_examples)
        for r in results
        if r.delta is not None
    ]


def merge_deltas(fit: Fit, result: Round) -> None:
    """Change the global weights by the mean of the deltas, which are then deleted."""
    fit.aggregator.merge(result.deltas, num_steps=result.num_steps)
    result.deltas.clear()  # makes room for the deltas of the next round


def finish_round(fit: Fit, epoch: int, result: Round, **figures: Any) -> bool:
    """Report on the epoch, validate the merged weights, and run the callbacks.

    Args:
        fit: `Fit`.
        epoch: Integer.
        result: `Round`, already merged.
        **figures: Additional attributes of the epoch's `EpochFacts`.

    Returns:
        Boolean, whether training stops here.
    """
    rate = fit.learning_rate(epoch)
    note_epoch(fit, EpochFacts(epoch, 1, result.workers, learning_rate=rate, **figures))
    metrics = [shard.metrics for shard in result.shards]
    num_examples = sum(shard.num_examples for shard in result.shards)
    over = close_epoch(fit, epoch, metrics, num_examples, result.counters, result.states)
    if not over:
        result.states.clear()  # makes room, as `merge_deltas` does
    return over


# -- rounds of many shards: executors average groups of deltas, see `kspark.job.groups` ------------


def run_grouped_round(
    fit: Fit, grouping: Grouping, task: Shipped, description: str, watch: Watch | None = None
) -> Round:
    """Train every shard for one epoch, and collect the mean delta of each group.

    Complete groups are kept. All shards of an incomplete group train again, each from its state
    of the epoch before, so that the means are the same bytes.

    Args:
        fit: `Fit`.
        grouping: `Grouping`.
        task: `Shipped`, called with partition index and handles.
        description: String, for Spark's UI.
        watch: `Watch` of the jobs. Defaults to `None`.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    retries = Retries(fit.train, fit.plan.max_failures)
    complete: dict[int, GroupResult] = {}
    wanted = list(range(len(grouping.groups)))
    while wanted:
        try:
            groups = collect_groups(fit, grouping, task, description, wanted, watch)
        except JobLostError as error:
            retries.after_lost_job(error)
            continue
        shard_results([part for group in groups for part in group.parts])  # raises failures
        missing = {group.number: missing_of(group) for group in groups}
        before = len(complete)
        complete |= {group.number: group for group in groups if not missing[group.number]}
        wanted = [number for number in wanted if number not in complete]
        if wanted:
            parted = [shard for found in missing.values() for shard in found]
            retries.after_missing_files(parted, progress=len(complete) > before)
    return round_of_groups(fit, [complete[number] for number in sorted(complete)])


def round_of_groups(fit: Fit, groups: list[GroupResult]) -> Round:
    """Return the round in which each group returned its mean delta, and no state."""
    spec = fit.spec.weights
    return Round(
        shard_results([part for group in groups for part in group.parts]),
        [
            Delta(g.number, fit.plan.unpacked(g.delta, spec), g.delta_examples)
            for g in groups
            if g.delta is not None
        ],
        [],
    )
