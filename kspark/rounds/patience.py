"""How long a round waits for its slowest shards. No clock, no Spark: times are arguments."""

from __future__ import annotations

import math
from collections.abc import Collection


class Patience:
    """The patience of one round.

    A round is over when more than half of a fit's shards have brought something, be it of
    this round or late from an earlier one, and those that began the round have all come, or
    have been waited for long enough since that moment. Shards that are late from an earlier
    round are not waited for beyond that half.

    ```
    5 shards, a timeout of 10 s                                     begun    under way after it
    round 1: 0 1 2 come, 10 s pass                                  0 1 2 3 4    3 4
    round 2: 0 1 come, and 3: three of five; 10 s for shard 2       0 1 2        2 4
    round 3: 0 1 3 come: nobody else began                          0 1 3        2 4
    last:    0 1 3 come, and 2 4, however long that takes           0 1 3        -
    ```

    Args:
        num_shards: Integer, shards of the fit.
        begun: Collection of the shards that began the round.
        timeout: Float, seconds; `None` to wait for all that are under way, as the last round of
            a fit does.
    """

    def __init__(self, num_shards: int, begun: Collection[int], timeout: float | None) -> None:
        self._num_shards = num_shards
        self._begun = frozenset(begun)
        self._timeout = timeout
        self._since: float | None = None

    def left(self, under_way: Collection[int], now: float) -> float:
        """How long the round may still wait.

        Args:
            under_way: Collection of the shards that have not come yet.
            now: Float, seconds on a clock that never goes back.

        Returns:
            Float, seconds; 0 if the round is over, infinity if nothing but results ends it.
        """
        if not under_way:
            return 0.0
        if self._timeout is None or 2 * len(under_way) >= self._num_shards:
            return math.inf
        if self._since is None:
            self._since = now
        if self._begun.isdisjoint(under_way):
            return 0.0
        return max(self._since + self._timeout - now, 0.0)
