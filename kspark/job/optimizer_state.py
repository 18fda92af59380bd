"""What replicas keep beside their merged weights comes home, into the driver's model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kspark.bootstrap import Shipped, ship
from kspark.job.shard_results import MAX_STRAYS
from kspark.job.spark_job import JobLostError, run
from kspark.job.tree import collect_groups, grouping_of
from kspark.worker import rounds as rounds_worker
from kspark.worker.groups import State, StateMean
from kspark.worker.results import MissingShard, Result, RoundResult

if TYPE_CHECKING:
    from kspark.job.fit import Fit

logger = logging.getLogger("kspark")


def take_state(job: Fit, states: Sequence[tuple[State, int]], epoch: int) -> None:
    """Bring the replicas' optimizer state home into the driver's model; see `StateMean`.

    Args:
        job: `Fit`.
        states: Pairs of state and training examples that came with the results; if there are
            none, they are fetched.
        epoch: Integer, the epoch after which the state is wanted.
    """
    mean = StateMean()
    for state, num_examples in states or fetched_states(job, epoch):
        mean.add(state, num_examples)
    merged = mean.result()
    if merged is None:
        logger.warning("The optimizer state was lost with its hosts; it starts anew.")
        return
    replica = job.monitor.replica
    rate = replica.learning_rate
    replica.set_optimizer_state(merged[0])
    if rate is not None:
        replica.learning_rate = rate
    replica.set_fixed(merged[1])


def states_of(job: Fit, results: Iterable[Result]) -> list[tuple[State, int]]:
    """The states that came with results, and the training examples behind each."""
    return [
        (result.state, job.num_train[result.shard])
        for result in results
        if isinstance(result, RoundResult) and result.state is not None
    ]


@dataclass(frozen=True)
class Fetched:
    """What one shard, or one group of shards, has of a state.

    Attributes:
        kept: List of pairs of state and training examples: one, or none if it was lost.
        strays: List of the shards whose tasks ran on other hosts than their files.
    """

    kept: list[tuple[State, int]]
    strays: list[int]


def fetched_states(job: Fit, epoch: int) -> list[tuple[State, int]]:
    """The states that are beside the shards; those that were lost with a host are left out.

    From as many shards on as a tree takes, they are means of groups. Tasks that Spark ran on
    a host without their files go back to it, some times.
    """
    task = ship(rounds_worker.fetch_state, job.fit_id, epoch)
    found: dict[int, Fetched] = {}
    wanted: list[int] | None = None
    for _ in range(1 + MAX_STRAYS):
        try:
            brought = fetch(job, task, wanted)
        except JobLostError:
            break
        found = {n: known for n, known in found.items() if n not in (wanted or ())} | brought
        wanted = sorted(number for number, fetched in found.items() if fetched.strays)
        if not wanted:
            break
    strays = sorted(shard for fetched in found.values() for shard in fetched.strays)
    if strays:
        logger.warning(
            "The optimizer state of shards %s is left out: Spark ran their tasks on other hosts "
            "than the ones that have it, %d times.",
            strays,
            1 + MAX_STRAYS,
        )
    return [pair for number in sorted(found) for pair in found[number].kept]


def fetch(job: Fit, task: Shipped, wanted: list[int] | None) -> dict[int, Fetched]:
    """Ask once for the states of some shards, or groups of shards; of all, if `None`."""
    grouping, what = grouping_of(job), "kspark: fetch optimizer state"
    if grouping is None:
        results = run(job.spark, job.train.handles.mapPartitionsWithIndex(task), what, wanted)
        return {r.shard: Fetched(states_of(job, [r]), strays_of(job, [r])) for r in results}
    return {
        group.number: Fetched(
            [] if group.state is None else [(group.state, group.state_examples)],
            strays_of(job, group.parts),
        )
        for group in collect_groups(job, grouping, task, what, wanted)
    }


def strays_of(job: Fit, results: Iterable[Result]) -> list[int]:
    """The shards with training examples whose tasks ran on another host than their files."""
    missing = [result for result in results if isinstance(result, MissingShard)]
    return [result.shard for result in missing if job.num_train.get(result.shard)]
