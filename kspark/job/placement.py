"""Bring shards and task slots together: one executor has too many shards, and another one is idle.

Nothing but Spark decides where a shard is written. It prefers the executor that has the rows, and
an executor that joins later gets none. So, before an epoch begins, the driver compares the shards
of each executor with its slots, if executors have come or gone since it did so last.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence

from kspark.cluster.engine import engine_of
from kspark.cluster.slots import locality_seconds, task_slots
from kspark.cluster.spark_job import JobLostError
from kspark.job.fit import Fit
from kspark.job.spooling import ShardsOnDisk
from kspark.shards import ShardHandle

logger = logging.getLogger("kspark")


class Placement:
    """Spreads the shards of a fit again whenever that helps.

    Args:
        fit: `Fit` whose examples are spooled.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._engine = engine_of(fit.spark)
        self._seen: frozenset[str] = frozenset()
        self._in_vain = False

    def spread(self, make_room: Callable[[], None] | None = None) -> None:
        """Spool the shards again if an executor has too many of them and another one is idle.

        This happens at most once for each set of executors, and not again in a fit in which it has
        changed nothing: executors may have different numbers of slots, and only their mean is
        known. Call it between two epochs.

        Args:
            make_room: Function that ends a job that holds task slots. Defaults to `None`: there is
                none.

        Raises:
            ValueError: If the input has other rows than at the beginning of the fit.
            WorkerError: If a task failed.
        """
        addresses = self._engine.addresses()
        executors = len(addresses) - 1  # without the driver
        if self._in_vain or addresses == self._seen or executors < 2:
            return
        is_first, self._seen = not self._seen, addresses
        shards, slots = self._shards(), task_slots(self._fit.spark) // executors
        if not is_first and not looked_again(shards):
            return
        # At the beginning, shards lie together because their rows do. Later, an executor may have
        # joined, and Spark uses it by itself.
        holds = [locality_seconds(self._fit.spark)]
        before = crowd(shards.infos)
        for hold in holds if is_first else [0.0, *holds]:
            excess = too_many(shards.infos, executors, slots)
            if not excess:
                return
            if make_room is not None:
                make_room()
            logger.info(
                "%s shards are on one executor, and %d executors have %d slots each. The shards "
                "are spooled again, spread over all executors.",
                excess,
                executors,
                max(slots, 1),
            )
            shards.respool(hold)
        self._in_vain = crowd(shards.infos) >= before

    def _shards(self) -> ShardsOnDisk:
        """Return the shards to look at. Mixed rows lie where the shuffle of their rows ends."""
        return self._fit.train if self._fit.unmixed is None else self._fit.unmixed.shards


def looked_again(shards: ShardsOnDisk) -> bool:
    """Look again where shards are. Returns whether that was possible; the next round will tell."""
    try:
        shards.look()
    except JobLostError:
        return False
    return True


def too_many(infos: Sequence[ShardHandle], executors: int, slots: int) -> int:
    """Return the shards of the executor that has most, if others could take half of them.

    A round takes as long as this executor needs, which trains as many shards at a time as it has
    slots. To spool again is worth it if that takes at least twice as long as with even numbers. For
    tasks that must run at the same time, this is so as soon as one of them has no slot.

    Args:
        infos: Sequence of `ShardHandle`.
        executors: Integer, number of executors.
        slots: Integer, slots of each executor, 0 if unknown.

    Returns:
        Integer; 0 if all executors have about as many, or no more than slots.
    """
    most = crowd(infos)
    fair = math.ceil(sum(1 for handle in infos if handle.num_examples) / executors)
    turns, even = (math.ceil(count / max(slots, 1)) for count in (most, fair))
    return most if turns >= 2 * even > 0 else 0


def crowd(infos: Sequence[ShardHandle]) -> int:
    """Return the number of shards with examples of the executor that has most."""
    counts = Counter(handle.mark for handle in infos if handle.num_examples)
    return max(counts.values(), default=0)
