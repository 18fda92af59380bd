"""The lock of a live fit, and waiting for changes until the fit ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kspark.errors import FitEndedError, KSparkError

LONGEST_NAP = 1.0
"""Seconds between checks of a wait. Nothing notifies it when a lost replica's timeout passes."""


class Gate:
    """A condition to wait on until it is closed.

    Attributes:
        changed: `threading.Condition`, reentrant. Hold it to use shared state, and notify it after
            every change.
        reason: String, the reason for closing; `None` while the gate is open.
        error: `KSparkError` that closed the gate, or `None`.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.reason: str | None = None
        self.error: KSparkError | None = None

    def close(self, reason: str, error: KSparkError | None = None) -> None:
        """End every wait, current and later. Only the first call sets the reason."""
        with self.changed:
            if self.reason is None:
                self.reason, self.error = reason, error
            self.changed.notify_all()

    def check_open(self) -> None:
        """Check that the gate is open.

        Raises:
            FitEndedError: If it is closed.
        """
        if self.reason is not None:
            raise FitEndedError(f"The aggregator is closed: {self.reason}.")

    def wait(self, over: Callable[[], bool], seconds: float, check: Callable[[], None]) -> bool:
        """Wait until a condition is true. The caller must hold `changed`.

        Args:
            over: Function without arguments, the condition.
            seconds: Float, the longest wait in seconds.
            check: Function without arguments that raises an exception to end the wait.

        Returns:
            Boolean, whether the condition became true.

        Raises:
            FitEndedError: If the gate closes during the wait.
        """
        deadline = time.monotonic() + seconds
        while not over():
            self.check_open()
            check()
            rest = deadline - time.monotonic()
            if rest <= 0:
                return False
            self.changed.wait(min(LONGEST_NAP, rest))
        return True
