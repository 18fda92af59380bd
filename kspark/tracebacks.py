"""Leave kspark's own frames out of tracebacks of interrupts and of errors about an argument.

Such an error is explained by its message and by the user's line. Keras leaves out its own frames in
the same way, and `keras.config.disable_traceback_filtering()` shows those of both.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def shows_the_users_line(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function to leave kspark's frames out of interrupts and argument errors.

    Frames of other modules stay. Errors that kspark does not raise itself stay as they are.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt as error:  # Where kspark was interrupted says nothing to users.
            error.__traceback__ = without_own(error.__traceback__)
            raise error
        except (ValueError, TypeError) as error:
            if not is_about_an_argument(error) or not is_filtering():
                raise
            for one in chain(error):
                if is_about_an_argument(one):
                    one.__traceback__ = without_own(one.__traceback__)
            # A bare `raise` would restore the frames in Python 3.10. Tracebacks show the next line.
            raise error  # To see more: keras.config.disable_traceback_filtering()

    return wrapper


def is_filtering() -> bool:
    """Whether Keras leaves out its own frames."""
    import keras

    return bool(keras.config.is_traceback_filtering_enabled())


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised from."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        yield found
        found = found.__cause__ or found.__context__


def is_about_an_argument(error: BaseException) -> bool:
    """Whether a `raise` in kspark raised a `ValueError` or `TypeError`.

    One that Python itself raises in a line of kspark is a fault of kspark, and needs its frames.
    """
    frames = list(frames_of(error.__traceback__))
    if not isinstance(error, ValueError | TypeError) or not frames or not is_own(frames[-1]):
        return False
    last = frames[-1]
    return dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def frames_of(trace: TracebackType | None) -> Iterator[TracebackType]:
    """Yield the entries of a traceback, the outermost first."""
    while trace is not None:
        yield trace
        trace = trace.tb_next


def is_own(trace: TracebackType) -> bool:
    """Whether an entry of a traceback is in a module of kspark."""
    frame: FrameType = trace.tb_frame
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "kspark"


def without_own(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of kspark."""
    kept: TracebackType | None = None
    for one in reversed(list(frames_of(trace))):
        if not is_own(one):
            kept = TracebackType(kept, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return kept


def from_first_other(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from its first frame outside of kspark on; all of it if there is none."""
    return next((one for one in frames_of(trace) if not is_own(one)), trace)
