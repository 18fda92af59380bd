"""What replicas keep beside their merged weights comes home, into the driver's model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kspark.cluster.bootstrap import Shipped, ship
from kspark.cluster.spark_job import JobLostError, run
from kspark.errors import ClusterError, WorkerError
from kspark.job.collecting import Again
from kspark.job.groups import collect_groups, grouping_of, missing_of
from kspark.worker.groups import Grouping, StateMean
from kspark.worker.state import fetch_state
from kspark.worker.tasks import MissingShard, Result, ShardResult, State

if TYPE_CHECKING:
    from kspark.job.fit import Fit

logger = logging.getLogger("kspark")


def take_state(fit: Fit, states: Sequence[tuple[State, int]], epoch: int) -> None:
    """Bring the replicas' optimizer state home into the driver's model; see `StateMean`.

    Args:
        fit: `Fit`.
        states: Pairs of state and training examples that came with the results; if there are
            none, they are fetched.
        epoch: Integer, the epoch after which the state is wanted.
    """
    mean = StateMean()
    for state, num_examples in states or fetched_states(fit, epoch):
        mean.add(state, num_examples)
    merged = mean.result()
    if merged is None:
        logger.warning("No replica's optimizer state is left; the model keeps what it had before.")
        return
    replica = fit.monitor.replica
    rate = replica.learning_rate
    replica.set_optimizer_state(merged[0])
    if rate is not None:
        replica.learning_rate = rate
    replica.set_fixed(merged[1])


def states_of(fit: Fit, results: Iterable[Result]) -> list[tuple[State, int]]:
    """The states that came with results, and the training examples behind each."""
    return [
        (result.state, fit.num_train[result.shard])
        for result in results
        if isinstance(result, ShardResult) and result.state is not None
    ]


@dataclass(frozen=True)
class Fetched:
    """What one shard, or one group of shards, has of a state.

    Attributes:
        kept: List of pairs of state and training examples: one, or none if it was lost.
        strays: List of `MissingShard`: tasks that ran on other hosts than their files.
    """

    kept: list[tuple[State, int]]
    strays: list[MissingShard]


def fetched_states(fit: Fit, epoch: int) -> list[tuple[State, int]]:
    """The states that are beside the shards; those that were lost with a host are left out.

    With at least `MIN_GROUPED_SHARDS` shards, they are means of groups. A fit does not fail for
    state that cannot be had: what there is counts, and the rest is told.
    """
    found: dict[int, Fetched] = {}
    try:
        fetch_all(fit, epoch, found)
    except (ClusterError, WorkerError) as error:
        logger.warning("Some of the replicas' optimizer state is left out. %s", error)
    return [pair for number in sorted(found) for pair in found[number].kept]


def fetch_all(fit: Fit, epoch: int, found: dict[int, Fetched]) -> None:
    """Fetch into `found`; a job that is lost, and tasks that went astray, are asked for again.

    Shards that are late have nothing of this epoch, and are not asked.

    Raises:
        WorkerError: If the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    task = ship(fetch_state, fit.fit_id, epoch)
    again = Again(fit.train, fit.plan.max_failures, fit.busy)
    late = fit.under_way()
    grouping = grouping_of(fit, late)
    shards = [shard for shard, n in sorted(fit.num_train.items()) if n and shard not in late]
    wanted = shards if grouping is None else list(range(len(grouping.groups)))
    while wanted:
        try:
            found.update(fetch(fit, grouping, task, wanted))
        except JobLostError as error:
            again.lost(error)
            continue
        wanted = [number for number in wanted if found[number].strays]
        if wanted:
            again.missing([stray for number in wanted for stray in found[number].strays])


def fetch(
    fit: Fit, grouping: Grouping | None, task: Shipped, wanted: list[int]
) -> dict[int, Fetched]:
    """Ask once for the states of some shards, or of some groups of shards."""
    what = "kspark: fetch optimizer state"
    brought = {number: Fetched([], []) for number in wanted}
    if grouping is not None:
        for group in collect_groups(fit, grouping, task, what, wanted):
            kept = [] if group.state is None else [(group.state, group.state_examples)]
            brought[group.number] = Fetched(kept, missing_of(group))
        return brought
    for result in run(fit.spark, fit.train.handles.mapPartitionsWithIndex(task), what, wanted):
        if result.shard in brought:  # Spark Connect brings all
            strays = [result] if isinstance(result, MissingShard) else []
            brought[result.shard] = Fetched(states_of(fit, [result]), strays)
    return brought
