"""How far asynchronous replicas may run ahead of each other: stale synchronous parallel.

The *clock* of a shard tells how far its applied pushes have brought it since
the fit began. An epoch is as many ticks for every shard as the one with most
exchanges needs; with the last push of an epoch a shard is at the beginning of
the next one:

```
clock = epochs done * ticks of an epoch + exchanges done of the open epoch
```

A replica goes on while its clock is at most `bound` ahead of the slowest
shard's. It waits inside of its push (or of the pull it begins with), so that a
waiting worker computes nothing. A shard that has ended is ahead of all others,
as is a short one at the end of an epoch: nobody waits for them. A shard whose
replica is lost keeps its clock; after the timeout the others go on without it.

Who is let go gets the weights of that moment, all of them at once and before
anybody pushes again. So with a bound of zero all replicas start each exchange
from the same weights, as in a synchronous fit.

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


@dataclass
class Waiter:
    """A replica that asks to go on.

    Attributes:
        shard: Integer.
        answer: Function without arguments that gives it fresh weights; returns their version.
        version: Integer, what `answer` returned, or `None` as long as it has to wait.
    """

    shard: int
    answer: Callable[[], int]
    version: int | None = None


class Clocks:
    """The clocks of all shards, and who waits. Called with the gate's lock held.

    Args:
        progress: `FitProgress`, which knows the pushes that were applied.
        gate: `Gate`.
        bound: Integer >= 0, how many ticks a replica may be ahead.
        ticks: Integer, exchanges an epoch of the shard that has most.
        timeout: Float, seconds. So long the others wait for a replica that is lost, and
            so long a single wait lasts.
    """

    def __init__(
        self, progress: FitProgress, gate: Gate, bound: int, ticks: int, timeout: float
    ) -> None:
        self._progress = progress
        self._gate = gate
        self._bound = bound
        self._ticks = ticks
        self._timeout = timeout
        self._end: int | None = None
        self._started: set[int] = set()
        self._without: set[int] = set()
        self._waiters: dict[int, Waiter] = {}

    def clock(self, shard: int) -> int:
        """How far a shard is: one tick less while its replica has still to ask for weights."""
        progress = self._progress
        epochs, rest = divmod(progress.shards[shard].sequence, progress.plans[shard].exchanges)
        return epochs * self._ticks + rest - (shard not in self._started)

    def begin_job(self, stop_epoch: int | None) -> None:
        """A new job begins. Replicas at the beginning of `stop_epoch` end, and wait for nobody."""
        first = self._progress.first_epoch
        self._end = None if stop_epoch is None else (stop_epoch - first) * self._ticks
        self._started.clear()

    def stop(self) -> None:
        """Training is over: nobody waits any more, as soon as those who wait are told."""
        self._end = -1

    def enter(self, shard: int, answer: Callable[[], int]) -> Waiter:
        """A replica has pushed, or begins, and asks to go on. Others may go on because of it."""
        self._started.add(shard)
        waiter = self._waiters[shard] = Waiter(shard, answer)
        self._release()
        return waiter

    def wait(self, waiter: Waiter, check: Callable[[], None]) -> int | None:
        """Wait until a replica may go on.

        Args:
            waiter: `Waiter` that `enter` returned.
            check: Function without arguments that raises if waiting has become useless.

        Returns:
            Integer, the version of the weights it was given, or `None` if it has to wait
            longer than an answer may take.

        Raises:
            ConnectionLostError: If the fit ends meanwhile.
        """

        def over() -> bool:
            if waiter.version is None:
                self._release()  # a lost replica may have been away for long enough
            return waiter.version is not None

        try:
            self._gate.wait(over, self._timeout, check)
        finally:
            if self._waiters.get(waiter.shard) is waiter:
                del self._waiters[waiter.shard]
        if waiter.version is None:  # it will ask again, and gets the same weights as the others
            self._started.discard(waiter.shard)
        return waiter.version

    def _release(self) -> None:
        """Answer all who may go on, with the same weights."""
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
        """Whether nothing is left to train in this job."""
        return self._end is not None and self.clock(shard) >= self._end

    def _slowest(self) -> int:
        """The clock of the slowest shard that is waited for."""
        gone = set(self._progress.lost(time.monotonic(), self._timeout)) - set(self._waiters)
        slowest = min(self.clock(s) for s in self._progress.shards if s not in gone)
        without = {s for s in gone if self.clock(s) < slowest}
        for shard in sorted(without - self._without):
            logger.warning(
                "Shard %d was lost and did not come back within %g s: the others go on "
                "without waiting for it.",
                shard,
                self._timeout,
            )
        self._without = without
        return slowest
