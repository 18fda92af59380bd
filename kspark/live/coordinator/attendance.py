"""Which replicas of the current Spark job are connected, and which are lost for too long."""

from __future__ import annotations

import math
import time

from kspark.live.coordinator.gate import Gate
from kspark.live.coordinator.progress import FitProgress

LOST_FACTOR = 5
"""How many timeouts a lost replica has to come back if the others do not wait for it."""


class Attendance:
    """The replicas of the current job.

    Args:
        progress: `FitProgress`.
        gate: `Gate`.
        mode: String, the mode of the fit.
        timeout: Float, seconds to wait for a lost replica.

    Attributes:
        timeout: Float, seconds that a lost replica has to come back.
        oldest_attempt: Integer. Attempts with smaller numbers belong to earlier jobs.
        together: Boolean, whether replicas begin when those of all shards have connected.
    """

    def __init__(self, progress: FitProgress, gate: Gate, mode: str, timeout: float) -> None:
        self._progress = progress
        self._gate = gate
        self.timeout = timeout if mode == "synchronous" else LOST_FACTOR * timeout
        self._stop_epoch: float = math.inf
        self.oldest_attempt = 0
        self.together = False

    def begin_job(self, oldest_attempt: int, stop_epoch: int | None, together: bool) -> None:
        """Begin a new job. Called with the gate's lock held."""
        self.oldest_attempt, self.together = oldest_attempt, together
        self._stop_epoch = math.inf if stop_epoch is None else stop_epoch
        for state in self._progress.shards.values():
            state.dismiss()

    def complete(self) -> bool:
        """Whether replicas may begin. Called with the gate's lock held."""
        return not (self.together and self._progress.never_connected())

    def never_connected(self) -> list[int]:
        """Return the shards, sorted, without a replica of the current job so far."""
        with self._gate.changed:
            return self._progress.never_connected()

    def lost(self) -> list[int]:
        """Return the shards, sorted, that have work left, but were lost for too long."""
        progress = self._progress
        with self._gate.changed:
            if progress.settled or self._gate.reason is not None:
                return []
            gone = progress.lost(time.monotonic(), self.timeout)
            return [s for s in gone if progress.epochs_of(s) < self._stop_epoch]
