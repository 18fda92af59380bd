"""Rounds of many shards: executors sum groups of deltas, and the driver merges their means.

```
shards   0 1 2 3   4 5 6 7   8 9 10 11   12 13 14 15   train, as in any round
groups      0         1          2            3        a shuffle; the mean of each by examples
driver                     merge                       as if these were four shards
```

With k shards the driver holds `⌈√k⌉` vectors, and so much less waits in its JVM.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from kspark.aggregator import Delta
from kspark.bootstrap import Shipped, ship
from kspark.job.engine import engine_of
from kspark.job.shard_results import Again, Round, done
from kspark.job.spark_job import JobLostError, run
from kspark.worker import groups as groups_worker
from kspark.worker.groups import Grouping, GroupResult
from kspark.worker.results import MissingShard

if TYPE_CHECKING:
    from kspark.job.fit import Fit

TREE_SHARDS = 16
"""From so many shards with examples on, executors sum groups of them.

The stage that this takes costs a few tenths of a second. Fewer vectors than this fit into
the memory of a driver that can train the model at all.
"""


def grouping_of(job: Fit, without: Collection[int] = ()) -> Grouping | None:
    """The groups of a fit's shards, or `None` if there are too few, or the session has no way.

    Args:
        job: `Fit`.
        without: Shards to leave out.
    """
    counts = {shard: n for shard, n in job.num_train.items() if n and shard not in without}
    if len(counts) < TREE_SHARDS:
        return None
    return Grouping.of(counts) if engine_of(job.spark).groups else None


def tree_of(job: Fit) -> Grouping | None:
    """As `grouping_of`, and `None` if the fit's rule needs every delta."""
    grouping = grouping_of(job)
    return grouping if grouping and job.aggregator.optimizer.averages_deltas else None


def tree_round(job: Fit, grouping: Grouping, task: Shipped, description: str) -> Round:
    """One epoch on all shards, again if Spark lost the job or a host its files.

    Groups that are whole are kept. All shards of the others train again, each from its state
    of the epoch before, so that the sums are the same bytes.

    Args:
        job: `Fit`.
        grouping: `Grouping`.
        task: `Shipped`, called with partition index and handles.
        description: String, for Spark's UI.

    Raises:
        WorkerError: If a replica failed, or the job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    again = Again(job.train, job.plan.max_failures)
    whole: dict[int, GroupResult] = {}
    wanted = list(range(len(grouping.groups)))
    while wanted:
        try:
            groups = collect_groups(job, grouping, task, description, wanted)
        except JobLostError as error:
            again.lost(error)
            continue
        done([part for group in groups for part in group.parts])
        missing = {group.number: missing_of(group) for group in groups}
        whole |= {group.number: group for group in groups if not missing[group.number]}
        wanted = [number for number in wanted if number not in whole]
        if wanted:
            again.missing([part for parts in missing.values() for part in parts])
    return round_of_groups(job, [whole[number] for number in sorted(whole)])


def missing_of(group: GroupResult) -> list[MissingShard]:
    """The shards of a group whose tasks found no files."""
    return [part for part in group.parts if isinstance(part, MissingShard)]


def round_of_groups(job: Fit, groups: list[GroupResult]) -> Round:
    """What groups brought, as what shards bring. State is fetched by itself."""
    return Round(
        done([part for group in groups for part in group.parts]),
        [
            Delta(g.number, job.plan.unpacked(g.delta, job.spec.weights), g.delta_examples)
            for g in groups
            if g.delta is not None
        ],
        [],
    )


def collect_groups(
    job: Fit,
    grouping: Grouping,
    task: Shipped,
    description: str,
    wanted: Sequence[int] | None = None,
) -> list[GroupResult]:
    """Run a task on every shard, and merge what it yields by groups; in their order.

    Args:
        job: `Fit`.
        grouping: `Grouping`.
        task: `Shipped`, called with partition index and handles.
        description: String, for Spark's UI.
        wanted: Sequence of the groups to do this for. Defaults to all.

    Raises:
        KSparkError: If Spark gave up on the job.
    """
    packing = job.plan.packing(job.spec.weights)
    numbers = range(len(grouping.groups)) if wanted is None else wanted
    handles = job.train.handles.mapPartitionsWithIndex(
        ship(groups_worker.of_groups, grouping, frozenset(numbers))
    )
    pairs = handles.mapPartitionsWithIndex(task).mapPartitionsWithIndex(
        ship(groups_worker.by_group, grouping)
    )
    grouped = pairs.partitionBy(len(grouping.groups), int)
    merged = grouped.mapPartitionsWithIndex(ship(groups_worker.merge_group, grouping, packing))
    try:
        return run(job.spark, merged, description, list(numbers))
    finally:
        # Else the files of the shuffle stay until the JVM happens to collect its garbage.
        merged.cleanShuffleDependencies()
