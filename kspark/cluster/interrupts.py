"""Defer Ctrl-C to moments at which an interrupt is safe.

An interrupt in the middle of a call into the JVM leaves the answer unread in
the connection. Every later call of the main thread would then read the answer
to the call before it. PySpark's own signal handler causes the same fault,
because it calls into the JVM whatever the main thread is doing. So while kspark
works, an interrupt is kept until the next safe moment: a wait, a callback of
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
Handler = Callable[[int, FrameType | None], Any] | int | None
"""A handler of a signal, as `signal.getsignal` returns it."""


class Interrupts:
    """The state of SIGINT handling inside a `deferred` block of the main thread.

    Attributes:
        pending: Integer, number of interrupts received and not yet raised.
        allowed: Boolean, whether to raise an interrupt at once.
        handler: The handler of SIGINT after the block.
    """

    def __init__(self, handler: Handler) -> None:
        self.pending = 0
        self.allowed = False
        self.handler = handler

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT. A second Ctrl-C is raised at once, even if interrupts are deferred."""
        self.pending += 1
        if self.allowed or self.pending > 1:
            self.raise_pending()

    def raise_pending(self) -> None:
        """Raise a pending interrupt.

        Raises:
            KeyboardInterrupt: If an interrupt is pending.
        """
        if self.pending:
            self.pending = 0
            raise KeyboardInterrupt


_current: Interrupts | None = None


def in_main_thread() -> bool:
    """Whether this is the main thread, the only one that receives signals."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def deferred() -> Iterator[None]:
    """Defer interrupts until `interruptible` or the end of the block. May be nested."""
    global _current
    handler = signal.getsignal(signal.SIGINT)
    # `None`: the handler was not installed from Python and could not be restored.
    if not in_main_thread() or _current is not None or handler is None:
        yield
        return
    _current = interrupts = Interrupts(handler)
    signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupts.handler)
        _current = None
    interrupts.raise_pending()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise interrupts at once inside this block, for code that may stop anywhere.

    Raises:
        KeyboardInterrupt: On entry, if an interrupt is pending.
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


@contextmanager
def raising(stop: Callable[[FrameType | None], None]) -> Iterator[Callable[[], None]]:
    """Raise interrupts at once inside this block, after a call that makes it safe.

    PySpark installs a handler of its own when it starts. That one stays, as without this block, but
    not before the end of a `deferred` block around this one.

    Args:
        stop: Function of the frame that was interrupted.

    Yields:
        Function that puts the handler of this block in place of one that was installed inside it,
        until the end of the block.

    Raises:
        KeyboardInterrupt: Also on entry, if an interrupt is pending.
    """
    outer, before = _current, signal.getsignal(signal.SIGINT)
    if not in_main_thread() or before in (None, signal.SIG_IGN):
        yield lambda: None
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop(frame)
        raise KeyboardInterrupt

    new: list[Handler] = []

    def again() -> None:
        if (installed := signal.getsignal(signal.SIGINT)) is not handle:
            new[:] = [installed]
            signal.signal(signal.SIGINT, handle)

    if outer is not None:
        outer.raise_pending()
    signal.signal(signal.SIGINT, handle)
    try:
        yield again
        again()
    except BaseException:
        new.clear()
        raise
    finally:
        if outer is not None and new:
            outer.handler = new[0]
        signal.signal(signal.SIGINT, new[0] if new and outer is None else before)


def defers_interrupts(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to run inside `deferred`, and to raise interrupts with a short traceback.

    Where kspark was interrupted says nothing to users, so the traceback ends at the decorated
    function.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        if _current is not None and in_main_thread():
            return function(*args, **kwargs)  # The outer one of two decorated functions raises.
        try:
            with deferred():
                return function(*args, **kwargs)
        except KeyboardInterrupt as error:
            texts = error.args or (f"`{function.__name__}` was interrupted.",)
        raise KeyboardInterrupt(*texts)

    return wrapper
