"""The lock around a live fit, the waits inside it, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kspark.errors import ConnectionLostError, KSparkError

LONGEST_NAP = 1.0
"""Seconds. Nobody tells when a lost replica has been away for too long: waits look themselves."""


class Gate:
    """A condition that everybody waits on, until it is closed.

    Attributes:
        changed: `threading.Condition`; hold it to look at shared state, notify it after
            every change. It may be entered again by the thread that holds it.
        reason: String, why the gate is closed, or `None`.
        error: `KSparkError` that closed it, or `None`.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.reason: str | None = None
        self.error: KSparkError | None = None

    def close(self, reason: str, error: KSparkError | None = None) -> None:
        """End every wait, now and from now on. The first reason stays."""
        with self.changed:
            if self.reason is None:
                self.reason, self.error = reason, error
            self.changed.notify_all()

    def check_open(self) -> None:
        """Refuse to go on behind a closed gate.

        Raises:
            ConnectionLostError: If it is closed.
        """
        if self.reason is not None:
            raise ConnectionLostError(f"The aggregator is closed: {self.reason}.")

    def wait(self, over: Callable[[], bool], seconds: float, check: Callable[[], None]) -> bool:
        """Wait, holding `changed`, for something to be true.

        Args:
            over: Function without arguments, what to wait for.
            seconds: Float, how long.
            check: Function without arguments that raises if waiting has become useless.

        Returns:
            Boolean, whether it has become true.

        Raises:
            ConnectionLostError: If the gate closes meanwhile.
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
