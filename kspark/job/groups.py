"""Jobs of many shards: executors average groups of deltas, and the driver merges the means.

```
shards   0 1 2 3   4 5 6 7   8 9 10 11   12 13 14 15   train, as in any round
groups      0         1          2            3        a shuffle; the mean of each by examples
driver                     merge                       as if these were four shards
```

With `k` shards the driver and its JVM hold `⌈√k⌉` vectors instead of `k`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from kspark.cluster import records
from kspark.cluster.bootstrap import Shipped, ship
from kspark.cluster.engine import engine_of
from kspark.cluster.spark_job import Watch, run
from kspark.worker.groups import Grouping, GroupResult, by_group, merge_group, of_groups
from kspark.worker.tasks import MissingShard

if TYPE_CHECKING:
    from kspark.job.fit import Fit

MIN_GROUPED_SHARDS = 16
"""Number of shards with examples from which executors average groups of deltas.

The additional stage takes a few tenths of a second. A driver that can train the model at all
has memory for fewer vectors than this.
"""


def grouping_of(fit: Fit, nbytes: int, without: Collection[int] = ()) -> Grouping | None:
    """Divide the shards of a fit into groups.

    Args:
        fit: `Fit`.
        nbytes: Integer, the size of what is fetched of each shard.
        without: Collection of shards to leave out.

    Returns:
        `Grouping`; `None` if there are fewer than `MIN_GROUPED_SHARDS` shards, if the session
        (Spark Connect) cannot shuffle results, or if a result is too large for a record: a shuffle
        does not join its pieces.
    """
    if nbytes > records.LARGEST_RECORD:
        return None
    counts = {shard: n for shard, n in fit.num_train.items() if n and shard not in without}
    if len(counts) < MIN_GROUPED_SHARDS:
        return None
    return Grouping.of(counts) if engine_of(fit.spark).groups else None


def delta_grouping_of(fit: Fit) -> Grouping | None:
    """Return the `grouping_of` deltas; `None` if the driver needs the delta of every shard.

    It needs them for some server optimizers, and with `callbacks_every`, because the workers that
    report to it within an epoch send it their deltas, too.
    """
    every = fit.plan.callbacks_every
    grouping = grouping_of(fit, fit.spec.weights.nbytes) if every is None else None
    return grouping if grouping and fit.aggregator.optimizer.averages_deltas else None


def missing_of(group: GroupResult) -> list[MissingShard]:
    """Return the shards of a group whose tasks found no files."""
    return [part for part in group.parts if isinstance(part, MissingShard)]


def collect_groups(
    fit: Fit,
    grouping: Grouping,
    task: Shipped,
    description: str,
    wanted: Sequence[int] | None = None,
    watch: Watch | None = None,
) -> list[GroupResult]:
    """Run a task on every shard, and average its results by groups.

    Args:
        fit: `Fit`.
        grouping: `Grouping`.
        task: `Shipped`, called with partition index and handles.
        description: String, for Spark's UI.
        wanted: Sequence of the groups to run. Defaults to all.
        watch: `Watch` of the job. Defaults to `None`.

    Returns:
        List of `GroupResult`, in the order of the groups.

    Raises:
        KSparkError: If Spark gave up on the job.
    """
    packing = fit.plan.packing(fit.spec.weights)
    numbers = range(len(grouping.groups)) if wanted is None else wanted
    handles = fit.train.handles.mapPartitionsWithIndex(
        ship(of_groups, grouping, frozenset(numbers))
    )
    pairs = handles.mapPartitionsWithIndex(task).mapPartitionsWithIndex(ship(by_group, grouping))
    grouped = pairs.partitionBy(len(grouping.groups), int)
    merged = grouped.mapPartitionsWithIndex(ship(merge_group, grouping, packing))
    try:
        return run(fit.spark, merged, description, list(numbers), watch=watch)
    finally:
        # Otherwise, the files of the shuffle stay until the JVM collects its garbage.
        merged.cleanShuffleDependencies()
