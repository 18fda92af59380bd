"""Bounded staleness: how far asynchronous replicas may be ahead (stale synchronous parallel).

The *clock* of a shard counts its progress since the fit began, in ticks. An epoch has the same
number of ticks for every shard: the exchanges of the shard with most exchanges. With the last push
of an epoch, a shard moves to the beginning of the next one:

```
clock = finished epochs * ticks per epoch + exchanges done in the open epoch
```

A replica continues while its clock is at most `bound` ahead of the slowest shard's clock.
Otherwise it waits for the answer to its push, or to its first pull. No replica waits for a shard
that has finished its job, nor for a short shard that has finished its epoch, because their clocks
are ahead. The clock of a shard whose replica is lost stops. After the timeout, the others continue
without it.

Replicas that may continue at the same moment get the same weights, before another push is
applied. So with a bound of zero, all replicas start each exchange from the same weights, as in a
synchronous fit.

Reference:
    Ho et al., 2013, "More effective distributed ML via a stale synchronous
    parallel parameter server", NeurIPS 26.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from kspark.live.coordinator.gate import Gate
from kspark.live.coordinator.progress import FitProgress

logger = logging.getLogger("kspark")

MANY_TICKS = 1 << 40
"""Ticks of an epoch of which nobody knows the exchanges: a shard that has finished it is ahead of
all that have not."""


@dataclass
class Waiter:
    """A replica that asks to continue.

    Attributes:
        shard: Integer.
        answer: Function without arguments that writes the current weights into the answer, and
            returns their version.
        version: Integer, the version that `answer` returned. Defaults to `None` while the replica
            waits.
    """

    shard: int
    answer: Callable[[], int]
    version: int | None = None


class Clocks:
    """The clocks of all shards, and the waiting replicas. Called with the gate's lock held.

    Args:
        progress: `FitProgress`, which counts the applied pushes.
        gate: `Gate`.
        bound: Integer >= 0, number of ticks that a replica may be ahead.
        ticks: Integer, exchanges per epoch of the shard with most exchanges; 0 if nobody knows it.
        timeout: Float, seconds that the others wait for a lost replica, and the limit of a single
            wait.
    """

    def __init__(
        self, progress: FitProgress, gate: Gate, bound: int, ticks: int, timeout: float
    ) -> None:
        self._progress = progress
        self._gate = gate
        self._bound = bound
        self._ticks = ticks or MANY_TICKS
        self._timeout = timeout
        self._end: int | None = None
        self._started: set[int] = set()
        self._without: set[int] = set()
        self._waiters: dict[int, Waiter] = {}

    def clock(self, shard: int) -> int:
        """Return a shard's clock, one tick less until its replica has asked for weights."""
        epochs, rest = self._progress.place_of(shard)
        return epochs * self._ticks + rest - (shard not in self._started)

    def begin_job(self, stop_epoch: int | None) -> None:
        """Begin a new job. Replicas that reach `stop_epoch` end, so they need not wait."""
        first = self._progress.first_epoch
        self._end = None if stop_epoch is None else (stop_epoch - first) * self._ticks
        self._started.clear()

    def stop(self) -> None:
        """End training. Waiting replicas continue when the gate next notifies them."""
        self._end = -1

    def enter(self, shard: int, answer: Callable[[], int]) -> Waiter:
        """Register a replica that asks to continue, and answer all that may continue now."""
        self._started.add(shard)
        waiter = self._waiters[shard] = Waiter(shard, answer)
        self._release()
        return waiter

    def wait(self, waiter: Waiter, check: Callable[[], None]) -> int | None:
        """Wait until a replica may continue.

        Args:
            waiter: `Waiter` that `enter` returned.
            check: Function without arguments that raises if the replica need not be answered.

        Returns:
            Integer, the version of the weights in its answer, or `None` if the replica may not
            continue within the timeout.

        Raises:
            ConnectionLostError: If the fit ends during the wait.
        """

        def over() -> bool:
            if waiter.version is None:
                self._release()  # A lost replica may have been gone for the timeout by now.
            return waiter.version is not None

        try:
            self._gate.wait(over, self._timeout, check)
        finally:
            if self._waiters.get(waiter.shard) is waiter:
                del self._waiters[waiter.shard]
        if waiter.version is None:  # It asks again, and then gets the same weights as others.
            self._started.discard(waiter.shard)
        return waiter.version

    def _release(self) -> None:
        """Answer all replicas that may continue, with the same weights."""
        asking = [w for w in self._waiters.values() if w.version is None]
        if not asking:
            return
        limit = self._slowest() + self._bound
        free = [w for w in asking if self.clock(w.shard) <= limit or self._through(w.shard)]
        for waiter in free:
            waiter.version = waiter.answer()
        if free:
            self._gate.changed.notify_all()

    def _through(self, shard: int) -> bool:
        """Whether a shard has finished this job."""
        return self._end is not None and self.clock(shard) >= self._end

    def _slowest(self) -> int:
        """Return the clock of the slowest shard, without shards that are lost."""
        gone = set(self._progress.lost(time.monotonic(), self._timeout)) - set(self._waiters)
        slowest = min(self.clock(s) for s in self._progress.shards if s not in gone)
        without = {s for s in gone if self.clock(s) < slowest}
        for shard in sorted(without - self._without):
            logger.warning(
                "Shard %d was lost and did not come back within %g s. The other shards continue "
                "without waiting for it.",
                shard,
                self._timeout,
            )
        self._without = without
        return slowest
