"""Rounds that wait for their slowest shards no longer than `straggler_timeout` seconds.

```
            round 1          round 2          last round
shard 0     ████·········    ████             ████
shard 1     ███████······    ██████           █████
shard 2     █████████████████████████████·    ·········      its delta is merged in round 2
            0 1              0 1 2            0 1
```

A late shard continues to train, and its delta is merged in the round in which it arrives. The
delta's staleness is the number of rounds that it is late. The shard starts no other epoch before,
and so it trains fewer epochs than the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from kspark.job.epochs import open_epoch
from kspark.job.fit import Fit
from kspark.job.optimizer_state import take_state
from kspark.job.placement import Placement
from kspark.rounds.driver import finish_round, merge_deltas, round_of_shards
from kspark.rounds.patience import Patience
from kspark.rounds.shard_jobs import ShardJobs, TrainedShard
from kspark.worker.tasks import State

logger = logging.getLogger("kspark")


def train_rounds_with_timeout(fit: Fit) -> None:
    """Train all epochs of a fit, one round per epoch, as `kspark.rounds.driver.train_rounds` does.

    The last round waits for all shards. If callbacks stop training earlier, the deltas of late
    shards are merged afterwards.
    """
    fit.take_road("rounds", "`straggler_timeout` needs a Spark job per shard.")
    shards = [shard for shard, count in sorted(fit.num_train.items()) if count]
    Placement(fit).spread()
    with ShardJobs(fit) as jobs:
        for epoch in range(fit.plan.initial_epoch, fit.plan.epochs):
            open_epoch(fit, epoch)
            states, stop = run_timed_round(fit, jobs, shards, epoch)
            if stop:
                break
        merge_late_shards(fit, jobs, epoch)
    take_state(fit, states, epoch)


def run_timed_round(
    fit: Fit, jobs: ShardJobs, shards: Sequence[int], epoch: int
) -> tuple[list[tuple[State, int]], bool]:
    """Train the shards that are not late for one epoch, and merge the deltas that arrive in time.

    Returns:
        Tuple: the states that came with the results (see `Round.states`), and whether training
        stops here.
    """
    starting = [shard for shard in shards if shard not in jobs.shards]
    jobs.start(starting, epoch)
    timeout = None if fit.last_epoch(epoch) else fit.plan.straggler_timeout
    trained = wait_for_shards(fit, epoch, jobs, Patience(len(shards), starting, timeout))
    stragglers = tuple(sorted(jobs.shards))
    late = tuple(item.result.shard for item in trained if item.epoch < epoch)
    log_stragglers(epoch, stragglers, late)
    result = round_of_shards(fit, [item.merged_in(epoch) for item in trained])
    trained.clear()  # `result` has the deltas, which are deleted when they are merged
    merge_deltas(fit, result)
    fit.states.epoch = epoch
    stop = finish_round(fit, epoch, result, stragglers=stragglers, late=late)
    return result.states, stop


def wait_for_shards(
    fit: Fit, epoch: int, jobs: ShardJobs, patience: Patience
) -> list[TrainedShard]:
    """Return the results that arrive before the round is over, in the order of the shards."""
    trained: list[TrainedShard] = []
    while (seconds := patience.seconds_left(jobs.shards, time.monotonic())) > 0:
        trained += jobs.wait(seconds)
        fit.progress.show_shards(epoch, len(trained), len(trained) + len(jobs.shards))
    return sorted(trained, key=lambda item: item.result.shard)


def log_stragglers(epoch: int, stragglers: Sequence[int], late: Sequence[int]) -> None:
    """Log the shards that miss the round of an epoch, and those whose older deltas it merges."""
    if stragglers:
        logger.info(
            "Epoch %d is merged without shards %s, which are still training. Their deltas will "
            "be merged in the round in which they arrive.",
            epoch + 1,
            list(stragglers),
        )
    if late:
        logger.info(
            "Epoch %d merges deltas of earlier rounds from shards %s.", epoch + 1, list(late)
        )


def merge_late_shards(fit: Fit, jobs: ShardJobs, epoch: int) -> None:
    """Wait for the late shards of a fit that ends before its last epoch, and merge their deltas.

    This merge is part of the last epoch's report. The metrics of the epoch are reported already
    and do not change.
    """
    if not jobs.shards:
        return
    logger.info("Waiting for shards %s, which are still training.", sorted(jobs.shards))
    trained = wait_for_shards(fit, epoch, jobs, Patience(0, (), None))
    result = round_of_shards(fit, [item.merged_in(epoch + 1) for item in trained])
    merge_deltas(fit, result)
    fit.monitor.replica.set_vector(fit.aggregator.weights)
    last = fit.epochs[-1]
    fit.epochs[-1] = replace(
        last,
        merges=last.merges + 1,
        workers=(*last.workers, *result.workers),
        late=(*last.late, *(shard.shard for shard in result.shards)),
    )
