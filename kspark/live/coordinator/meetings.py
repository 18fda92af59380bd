"""The part of the coordinator for synchronous replicas: meetings and restarts of epochs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import numpy as np

from kspark.errors import AggregationError, ConnectionLostError, KSparkError
from kspark.live.coordinator.gate import Gate
from kspark.live.coordinator.progress import FitProgress
from kspark.live.coordinator.rendezvous import Meeting, Rendezvous
from kspark.live.wire import Restart, Start
from kspark.live.wire.reports import EpochEnd, WaitingReport

logger = logging.getLogger("kspark")


class Meetings:
    """The synchronous half of a `Coordinator`, which calls it with the gate's lock held.

    Args:
        rendezvous: `Rendezvous`.
        progress: `FitProgress`.
        gate: `Gate`.
        timeout: Float, seconds to wait for a replica that is not connected.
    """

    def __init__(
        self, rendezvous: Rendezvous, progress: FitProgress, gate: Gate, timeout: float
    ) -> None:
        self._rendezvous = rendezvous
        self._progress = progress
        self._gate = gate
        self._timeout = timeout

    def start(self) -> Start:
        """Return where a new replica begins: after the open epoch if that is settled."""
        progress = self._progress
        epoch = progress.closed + 1 if progress.settled else progress.closed
        return Start(epoch, generation=self._rendezvous.generation)

    def exchange(
        self, shard: int, sequence: int, vector: np.ndarray | None, num_examples: int
    ) -> np.ndarray | None:
        """Add a vector to the current meeting, and wait for all other replicas.

        Returns:
            The merged vector, or `None` if the epoch starts again.

        Raises:
            AggregationError: If the vectors cannot be merged, which ends the fit.
            ConnectionLostError: If another replica was lost and did not come back.
        """
        meeting = self._rendezvous.meeting
        if self._is_old(Meeting(sequence).generation):
            return None
        if sequence != meeting.sequence:
            raise AggregationError(
                f"Shard {shard} is at exchange {Meeting(sequence).step} of the epoch, but the "
                f"other shards are at exchange {meeting.step}."
            )
        if self._take(meeting, shard, vector, float(num_examples)):
            self._gate.changed.notify_all()
        else:  # As long as the others are connected, they are slow at most: see `Watch`.
            self._wait(lambda: meeting.merged is not None or self._is_old(meeting.generation))
        return None if self._is_old(meeting.generation) else meeting.merged

    def _take(
        self, meeting: Meeting, shard: int, vector: np.ndarray | None, num_examples: float
    ) -> bool:
        """Add a vector. An error ends the fit for all replicas, not only for this one."""
        try:
            return self._rendezvous.take(meeting, shard, vector, num_examples)
        except KSparkError as error:
            self._gate.close(str(error), error)
            raise

    def answer(self, shard: int, report: EpochEnd | WaitingReport) -> tuple[bool, Restart | None]:
        """Answer a replica that has finished an epoch, or waits for gradients in shared memory.

        Returns:
            Tuple of whether the replica may continue, and the `Restart` that it has missed.

        Raises:
            ConnectionLostError: If another replica is lost for too long.
        """
        generation = report.generation or 0
        if isinstance(report, EpochEnd):
            free = self.hold(shard, report.epoch, generation, bool(report.last))
            return free, self.restart_since(generation)
        if not report.found and not self._is_old(generation):
            self.restart(f"The worker of shard {shard} does not see the shared memory.")
        self._check_lost()
        return True, self.restart_since(generation)

    def hold(self, shard: int, epoch: int, generation: int, last: bool) -> bool:
        """Make a replica wait after an epoch until the driver has closed the epoch.

        Args:
            shard: Integer.
            epoch: Integer.
            generation: Integer, number of the try at the epoch that the replica has finished.
            last: Boolean, whether its job ends after this epoch. Then it waits only until all
                shards have finished the epoch, because the driver may need its task slot.

        Returns:
            Boolean, whether the replica may continue. Otherwise it reports again, because the
            driver's callbacks may take longer than the timeout of an answer.
        """
        progress = self._progress
        if not self._is_old(generation):
            progress.finish(shard, epoch)
            self._gate.changed.notify_all()

        def over() -> bool:
            through = last and progress.finished(epoch)
            return through or progress.closed > epoch or self._is_old(generation)

        return self._wait(over, self._timeout)

    def enter(self, complete: Callable[[], bool]) -> None:
        """Let a replica begin the open epoch, once the driver has closed a settled one.

        The driver's callbacks may change the weights before they close an epoch.

        Args:
            complete: Function without arguments, whether all replicas that it needs are there.

        Raises:
            ConnectionLostError: If another replica was lost and did not come back.
        """
        self._wait(lambda: not self._progress.settled and complete())
        self._rendezvous.entered = True

    def restart(self, reason: str) -> None:
        """Restart the open epoch if a replica has exchanged in it, unless all have finished it.

        Args:
            reason: String, a sentence for the log.
        """
        if self._progress.settled or not self._rendezvous.begun:
            return
        self._rendezvous.restart_epoch()
        self._progress.restart()
        self._gate.changed.notify_all()
        number = self._progress.closed + 1
        logger.warning("%s Epoch %d starts again on all workers.", reason, number)

    def again(self) -> Restart:
        """Return the restart of the open epoch."""
        return Restart(self._progress.closed, self._rendezvous.generation)

    def restart_since(self, generation: int) -> Restart | None:
        """Return the restart that a replica with this generation has missed, or `None`."""
        return self.again() if self._is_old(generation) else None

    def begin_epoch(self) -> None:
        """Begin the next epoch after the driver has closed one."""
        self._rendezvous.begin_epoch()

    def _is_old(self, generation: int) -> bool:
        return generation != self._rendezvous.generation

    def _wait(self, over: Callable[[], bool], seconds: float = math.inf) -> bool:
        return self._gate.wait(over, seconds, self._check_lost)

    def _check_lost(self) -> None:
        """Raise an error if a replica that the open epoch needs is lost for too long."""
        gone = self._progress.lost(time.monotonic(), self._timeout)
        if gone and not self._progress.settled:
            raise ConnectionLostError(
                f"Shards {gone} were lost and did not come back within {self._timeout:g} s."
            )
