"""Ctrl-C at the right moments only.

An interrupt in the middle of a call into the JVM leaves that call's answer in
the connection, and every later call of the main thread would read the answer
of the one before. PySpark's own handler does so, too: it calls into the JVM
itself, whatever the main thread is doing. So while kspark works, an interrupt
is kept until the next moment at which it does no harm: a wait, a callback of
the user, or the end.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Interrupts:
    """What becomes of SIGINT between `deferred` and its end. Only the main thread has one.

    Attributes:
        pending: Integer, interrupts that were kept.
        allowed: Boolean, whether the next one may come through at once.
    """

    def __init__(self) -> None:
        self.pending = 0
        self.allowed = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. Who presses a second time does not want to wait."""
        self.pending += 1
        if self.allowed or self.pending > 1:
            self.raise_pending()

    def raise_pending(self) -> None:
        """Let an interrupt that was kept come through.

        Raises:
            KeyboardInterrupt: If there is one.
        """
        if self.pending:
            self.pending = 0
            raise KeyboardInterrupt


_current: Interrupts | None = None


def in_main_thread() -> bool:
    """Whether this is the thread that signals interrupt."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def deferred() -> Iterator[None]:
    """Keep interrupts until `interruptible` or the end of the block. May be nested."""
    global _current
    handler = signal.getsignal(signal.SIGINT)
    # `None`: somebody else's handler, not Python's, which could not be put back.
    if not in_main_thread() or _current is not None or handler is None:
        yield
        return
    _current = interrupts = Interrupts()
    signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        _current = None
    interrupts.raise_pending()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let interrupts through: nothing is half done here.

    Raises:
        KeyboardInterrupt: At once, if one was kept.
    """
    interrupts = _current
    if interrupts is None or not in_main_thread():
        yield
        return
    before, interrupts.allowed = interrupts.allowed, True
    try:
        interrupts.raise_pending()
        yield
    finally:
        interrupts.allowed = before


def defers_interrupts(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function whose whole body is in `deferred`."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        with deferred():
            return function(*args, **kwargs)

    return wrapper
