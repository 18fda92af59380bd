"""How long a round waits for its slowest shards. Without clock and Spark: times are arguments."""

from __future__ import annotations

import math
from collections.abc import Collection


class Patience:
    """Decides when a round is over.

    A round waits for results from more than half of the fit's shards; late results of earlier
    rounds count too. From that moment on, it waits at most `timeout` seconds for the other shards
    that started in this round, and not at all for shards that started in an earlier one.

    ```
    5 shards, a timeout of 10 s                                   started      running afterwards
    round 1: 0 1 2 arrive, 10 s pass                              0 1 2 3 4    3 4
    round 2: 0 1 3 arrive, 10 s pass for shard 2                  0 1 2        2 4
    round 3: 0 1 3 arrive: no other shard started in this round   0 1 3        2 4
    last:    0 1 3 arrive, then 2 4 after any number of seconds   0 1 3        -
    ```

    Args:
        num_shards: Integer, number of shards in the fit.
        started: Collection of the shards that started in this round.
        timeout: Float, seconds. `None` waits for all shards, as the last round of a fit does.
    """

    def __init__(self, num_shards: int, started: Collection[int], timeout: float | None) -> None:
        self._num_shards = num_shards
        self._started = frozenset(started)
        self._timeout = timeout
        self._since: float | None = None

    def seconds_left(self, running: Collection[int], now: float) -> float:
        """Return how long the round may still wait.

        Args:
            running: Collection of the shards whose results have not arrived.
            now: Float, seconds on a monotonic clock.

        Returns:
            Float, seconds. 0 if the round is over; infinity if the round is not over before
            further results arrive.
        """
        if not running:
            return 0.0
        if self._timeout is None or 2 * len(running) >= self._num_shards:
            return math.inf
        if self._since is None:
            self._since = now
        if self._started.isdisjoint(running):
            return 0.0
        return max(self._since + self._timeout - now, 0.0)
