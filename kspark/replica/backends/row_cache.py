"""Keep the rows of windows in the form that a backend computes with, for later epochs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar
from weakref import ref

from kspark.shards import Window

MAX_KEPT_BYTES = 256 * 2**20
"""Memory for rows that are kept, in bytes: two default windows, for training and validation."""


class Sized(Protocol):
    """Rows that know their size."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""


R = TypeVar("R", bound=Sized)


class RowCache(Generic[R]):
    """A cache of converted windows, for windows with a key. Drops the least recently used.

    Args:
        convert: Function of a `Window` that returns its rows, in stored order.
        max_bytes: Integer, size of the cache in bytes. The last window is kept even if it is
            larger.
    """

    def __init__(self, convert: Callable[[Window], R], max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._convert = convert
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, R] = OrderedDict()
        self._last: tuple[ref[Window], R] | None = None

    def load(self, window: Window) -> R:
        """Return the rows of a window."""
        if window.key is None:
            return self._single(window)
        rows = self._kept.pop(window.key, None)
        self._kept[window.key] = rows = self._convert(window) if rows is None else rows
        while len(self._kept) > 1 and sum(r.nbytes for r in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)
        return rows

    def forget(self) -> None:
        """Free all rows."""
        self._kept.clear()
        self._last = None

    def _single(self, window: Window) -> R:
        """Return the rows of a window without a key. They are kept as long as the window is.

        A window is trained in several calls.
        """
        if self._last is None or self._last[0]() is not window:
            self._last = ref(window, self._drop), self._convert(window)
        return self._last[1]

    def _drop(self, window: ref[Window]) -> None:
        if self._last is not None and self._last[0] is window:
            self._last = None
