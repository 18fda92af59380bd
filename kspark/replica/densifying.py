"""Make the sparse rows of a window dense, several batches at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kspark.replica.preparing import Part, batch_rows, dense
from kspark.shards import Chunk, Window

DENSE_BYTES = 8 << 20
"""Approximate size of the rows that are dense at a time. They are copied to a tensor and then
gathered, which takes less time if they are still in the processor's cache."""


def dense_parts(
    window: Window, batch_size: int, start: int, stop: int, max_bytes: int
) -> Iterator[Part]:
    """Make batches `[start, stop)` of a window dense.

    Args:
        window: `Window`.
        batch_size: Integer, examples per batch.
        start: Integer, first batch.
        stop: Integer, the batch after the last one.
        max_bytes: Integer, size of a part in bytes. A part has at least one batch, even if that is
            larger.

    Yields:
        `Part`, whose window has its rows in the order to use them.
    """
    row_bytes = dense(batch_rows(window, 1, 0)).nbytes if window.num_examples else 0
    step = max(1, max_bytes // max(1, batch_size * row_bytes))
    for first in range(start, stop, step):
        last = min(first + step, stop)
        rows: Any = slice(batch_size * first, batch_size * last)
        if window.order is not None:
            rows = window.order[rows]
        found = dense(Chunk(window.x, window.y, window.sample_weight).taken(rows))
        own = Window(found.x, found.y, found.sample_weight, first_batch=window.first_batch + first)
        yield Part(own, 0, last - first, first)
