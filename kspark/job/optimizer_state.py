"""Set the optimizer state of the driver's model to the mean of the replicas' states."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kspark.cluster.bootstrap import Shipped, ship
from kspark.cluster.records import in_records
from kspark.cluster.spark_job import JobLostError, run
from kspark.errors import ClusterError, WorkerError
from kspark.job.collecting import Retries
from kspark.job.groups import collect_groups, grouping_of, missing_of
from kspark.worker.groups import Grouping, StateMean
from kspark.worker.state import fetch_state
from kspark.worker.tasks import MissingShard, Result, ShardResult, State

if TYPE_CHECKING:
    from kspark.job.fit import Fit

logger = logging.getLogger("kspark")


def take_state(fit: Fit, states: Sequence[tuple[State, int]], epoch: int) -> None:
    """Average the replicas' states into the driver's model; see `StateMean`.

    Args:
        fit: `Fit`.
        states: Sequence of pairs of a replica's state and its number of training examples. If
            it is empty, the states are fetched from the executors.
        epoch: Integer, the epoch at whose end the states are taken.
    """
    mean = StateMean()
    for state, num_examples in states or fetched_states(fit, epoch):
        mean.add(state, num_examples)
    merged = mean.result()
    if merged is None:
        logger.warning(
            "The optimizer state of no replica could be fetched. The model keeps its own."
        )
        if fit.state_counters is not None:
            fit.monitor.replica.withdraw_steps(fit.state_counters)
        return
    replica = fit.monitor.replica
    rate = replica.learning_rate
    replica.set_optimizer_state(merged[0])
    if rate is not None:
        replica.learning_rate = rate
    replica.set_fixed(merged[1])
    fit.state_counters = replica.counters


@contextmanager
def settled_model(fit: Fit) -> Iterator[None]:
    """Restore step counters and weights of the driver's model if the block raises an exception.

    Callbacks see the counters of the replicas, and their weights within an epoch. If training
    fails, the states of the replicas are lost, and the model gets back the counters and the weights
    that belong to its own optimizer state.
    """
    replica = fit.monitor.replica
    if fit.state_counters is None:
        fit.state_counters = replica.counters
    try:
        yield
    except BaseException:
        replica.withdraw_steps(fit.state_counters)
        fit.monitor.leave_epoch()
        raise


def states_of(fit: Fit, results: Iterable[Result]) -> list[tuple[State, int]]:
    """Return the states in `results`, each with its number of training examples."""
    return [
        (result.state, fit.weight_of(result))
        for result in results
        if isinstance(result, ShardResult) and result.state is not None
    ]


@dataclass(frozen=True)
class Fetched:
    """The state of one shard, or the mean state of one group of shards.

    Attributes:
        kept: List of one pair of state and number of training examples; empty if it is lost.
        strays: List of `MissingShard`, tasks that ran on hosts without their files.
    """

    kept: list[tuple[State, int]]
    strays: list[MissingShard]


def fetched_states(fit: Fit, epoch: int) -> list[tuple[State, int]]:
    """Fetch the replicas' states from the executors, as means of groups if there are groups.

    States that were lost with a host are left out. A fit does not fail because of missing
    states: the others are used, and a warning is logged.
    """
    found: dict[int, Fetched] = {}
    try:
        fetch_all(fit, epoch, found)
    except (ClusterError, WorkerError) as error:
        logger.warning("The optimizer states of some replicas could not be fetched: %s", error)
    return [pair for number in sorted(found) for pair in found[number].kept]


def fetch_all(fit: Fit, epoch: int, found: dict[int, Fetched]) -> None:
    """Fetch states into `found`; submit again lost jobs and tasks that ran on other hosts.

    Late shards have no state of this epoch and are left out.

    Raises:
        WorkerError: If the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    task = ship(fetch_state, fit.fit_id, epoch)
    # Without a state on the driver, a shard that moves leaves behind what is looked for.
    retries = Retries(fit.train, fit.plan.max_failures, fit.busy, moves=fit.states.travels)
    late = fit.late_shards()
    grouping = grouping_of(fit, fit.monitor.replica.state_nbytes, late)
    shards = [shard for shard, n in sorted(fit.num_train.items()) if n and shard not in late]
    wanted = shards if grouping is None else list(range(len(grouping.groups)))
    while wanted:
        try:
            found.update(fetch(fit, grouping, task, wanted))
        except JobLostError as error:
            retries.after_lost_job(error)
            continue
        wanted = [number for number in wanted if found[number].strays]
        if wanted:
            strays = [stray for number in wanted for stray in found[number].strays]
            retries.after_missing_files(strays)


def fetch(
    fit: Fit, grouping: Grouping | None, task: Shipped, wanted: list[int]
) -> dict[int, Fetched]:
    """Run one job that fetches the states of the wanted groups, or shards if there are none."""
    description, watch = "kspark: fetch optimizer state", fit.progress.watch
    fetched = {number: Fetched([], []) for number in wanted}
    if grouping is not None:
        for group in collect_groups(fit, grouping, task, description, wanted, watch):
            kept = [] if group.state is None else [(group.state, group.state_examples)]
            fetched[group.number] = Fetched(kept, missing_of(group))
        return fetched
    rdd = fit.train.handles.mapPartitionsWithIndex(in_records(task))
    for result in run(fit.spark, rdd, description, wanted, watch=watch):
        if result.shard in fetched:  # Spark Connect returns the results of all shards
            strays = [result] if isinstance(result, MissingShard) else []
            fetched[result.shard] = Fetched(states_of(fit, [result]), strays)
    return fetched
