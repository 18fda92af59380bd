"""What replicas keep beside their merged weights comes home, into the driver's model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kspark.bootstrap import ship
from kspark.job.spark_job import JobLostError, run
from kspark.job.tree import collect_groups, grouping_of
from kspark.worker import rounds as rounds_worker
from kspark.worker.groups import State, StateMean
from kspark.worker.results import RoundResult

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


def states_of(job: Fit, results: Iterable[RoundResult]) -> list[tuple[State, int]]:
    """The states that came with results, and the training examples behind each."""
    return [(r.state, job.num_train[r.shard]) for r in results if r.state is not None]


def fetched_states(job: Fit, epoch: int) -> list[tuple[State, int]]:
    """The states that are beside the shards; those that were lost with a host are left out.

    From as many shards on as a tree takes, they are means of groups.
    """
    task, what = ship(rounds_worker.fetch_state, job.fit_id, epoch), "kspark: fetch optimizer state"
    grouping = grouping_of(job)
    try:
        if grouping is not None:
            groups = collect_groups(job, grouping, task, what)
            return [(g.state, g.state_examples) for g in groups if g.state is not None]
        found = run(job.spark, job.train.handles.mapPartitionsWithIndex(task), what)
    except JobLostError:
        return []
    kept = sorted((r for r in found if job.num_train.get(r.shard)), key=lambda r: r.shard)
    return states_of(job, kept)
