"""Rounds that do not wait for their slowest shards longer than `straggler_timeout`.

```
            round 1          round 2          last round
shard 0     ████·········    ████             ████
shard 1     ███████······    ██████           █████
shard 2     █████████████████████████████·    ·········      its delta is merged with round 2
            0 1              0 1 2            0 1
```

A shard that is late trains on, and its delta is merged with the round in which it comes. It
began with older weights, and its staleness is the rounds it is late. It begins no other epoch
until it has come, so that it trains fewer epochs than the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from kspark.job.epochs import open_epoch
from kspark.job.fit import Fit
from kspark.job.optimizer_state import take_state
from kspark.rounds.driver import finish_round, round_of
from kspark.rounds.flights import Flights, Landed
from kspark.rounds.patience import Patience
from kspark.worker.tasks import State

logger = logging.getLogger("kspark")


def train_straggling(fit: Fit) -> None:
    """Every epoch: the shards that are there train; what has come in time is merged.

    The last round waits for all, and if callbacks end the fit before, so does what comes
    after it: nothing that was computed is lost.
    """
    shards = [shard for shard, count in sorted(fit.num_train.items()) if count]
    with Flights(fit) as flights:
        for epoch in range(fit.plan.initial_epoch, fit.plan.epochs):
            open_epoch(fit, epoch)
            states, over = train_round(fit, flights, shards, epoch)
            if over:
                break
        merge_rest(fit, flights, epoch)
    take_state(fit, states, epoch)


def train_round(
    fit: Fit, flights: Flights, shards: Sequence[int], epoch: int
) -> tuple[list[tuple[State, int]], bool]:
    """One epoch of the shards that are not under way.

    Returns:
        Tuple: the states that came along, and whether training is over.
    """
    begun = [shard for shard in shards if shard not in flights.shards]
    flights.begin(begun, epoch)
    timeout = None if fit.last_epoch(epoch) else fit.plan.straggler_timeout
    landed = gather(flights, Patience(len(shards), begun, timeout))
    missed, late = tuple(sorted(flights.shards)), late_of(landed, epoch)
    tell(epoch, missed, late)
    brought = round_of(fit, [item.told(epoch) for item in landed])
    landed.clear()  # `brought` has the deltas, until they are merged
    over = finish_round(fit, epoch, brought, stragglers=missed, late=late)
    fit.monitor.record(stragglers=len(missed))
    return brought.states, over


def gather(flights: Flights, patience: Patience) -> list[Landed]:
    """What shards bring before patience is at its end, in the order of the shards."""
    landed: list[Landed] = []
    while (left := patience.left(flights.shards, time.monotonic())) > 0:
        landed += flights.wait(left)
    return sorted(landed, key=lambda item: item.result.shard)


def late_of(landed: Sequence[Landed], epoch: int) -> tuple[int, ...]:
    """The shards that have come with an epoch from before."""
    return tuple(item.result.shard for item in landed if item.epoch < epoch)


def tell(epoch: int, missed: Sequence[int], late: Sequence[int]) -> None:
    """Log who missed the round of an epoch, and who came late."""
    if missed:
        logger.info(
            "Epoch %d is merged without shards %s, which are still at work. Their changes are "
            "merged when they come.",
            epoch + 1,
            list(missed),
        )
    if late:
        logger.info("Epoch %d: shards %s bring changes of earlier rounds.", epoch + 1, list(late))


def merge_rest(fit: Fit, flights: Flights, epoch: int) -> None:
    """Wait for the shards that are under way when a fit ends early, and merge what they bring.

    It becomes part of the last epoch's report; the epoch's metrics are told already.
    """
    if not flights.shards:
        return
    logger.info("Waiting for shards %s, which are still at work.", sorted(flights.shards))
    landed = gather(flights, Patience(0, (), None))
    brought = round_of(fit, [item.told(epoch + 1) for item in landed])
    fit.aggregator.merge(brought.deltas, num_steps=brought.num_steps)
    fit.monitor.replica.set_vector(fit.aggregator.weights)
    last = fit.epochs[-1]
    fit.epochs[-1] = replace(
        last,
        merges=last.merges + 1,
        workers=(*last.workers, *brought.workers),
        late=(*last.late, *(result.shard for result in brought.results)),
    )
