"""What all engines of this benchmark share. This module needs no kspark."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

BATCH_SIZE = 64
WARM_CALLS = 3


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function. Returns the seconds that it takes, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def first_and_warm(work: Callable[[], Any]) -> dict[str, float]:
    """The seconds of a function's first call, and the median of `WARM_CALLS` more calls."""
    first, *more = (timed(work)[0] for _ in range(1 + WARM_CALLS))
    return {"first": first, "warm": statistics.median(more)}
