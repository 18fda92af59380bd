"""Prepare the rows of a window batch by batch, before the model gets them.

The compiled loops of a replica run over windows whose arrays are the model's inputs. Where the rows
of a window are something else, such as text to be encoded or rows of sparse matrices, each batch is
prepared by itself, and consecutive batches are packed into windows of bounded size:

```
window of rows    batch 0 | batch 1 | batch 2 | batch 3
   prepare()         ↓         ↓         ↓         ↓
parts             [ batch 0, batch 1 ] [ batch 0, batch 1 ]
```
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kspark.replica.backends.base import Exchange
from kspark.shards import Chunk, Window, joined

PART_BYTES = 64 << 20
"""Default size of a part in bytes. A part has at least one batch, even if that is larger."""

Prepare = Callable[[Chunk, int], Chunk]
"""Function of the rows of one batch, which it may change, and the number of the batch in its pass
over the shard. Returns as many rows, whose arrays in `x` are the model's inputs."""


class Preparation(Protocol):
    """What is done to the rows of each batch before the model gets them."""

    def applies(self, *, training: bool) -> bool:
        """Whether it does anything to the rows."""
        ...

    def seed(self, value: int) -> None:
        """Seed its random numbers, for one epoch of a shard."""
        ...

    def __call__(self, chunk: Chunk, number: int, *, training: bool) -> Chunk:
        """Prepare the rows of one batch, see `Prepare`.

        Args:
            chunk: `Chunk` of dense arrays.
            number: Integer, the number of the batch in its pass over the shard.
            training: Boolean, whether the model is trained on the batch.
        """
        ...


@dataclass(frozen=True)
class Part:
    """Consecutive batches of a window, as a window that the model can take.

    Attributes:
        window: `Window`.
        start: Integer, the first batch of `window` to use.
        stop: Integer, the batch after the last one.
        skipped: Integer, number of batches of the original window before batch 0 of `window`.
    """

    window: Window
    start: int
    stop: int
    skipped: int = 0


def prepared(
    window: Window,
    batch_size: int,
    start: int,
    stop: int,
    prepare: Prepare,
    max_bytes: int,
) -> Iterator[Part]:
    """Prepare batches `[start, stop)` of a window.

    Batches whose arrays have other shapes or dtypes than those before begin a new part, such as
    texts that are padded to the longest text of their batch.

    Args:
        window: `Window`.
        batch_size: Integer, examples per batch.
        start: Integer, first batch.
        stop: Integer, the batch after the last one.
        prepare: `Prepare`.
        max_bytes: Integer, memory limit of the arrays of a part in bytes.

    Yields:
        `Part`, whose window has its rows in the order to use them.
    """
    held: list[Chunk] = []
    first, size = start, 0
    for index in range(start, stop):
        chunk = prepare(batch_rows(window, batch_size, index), window.first_batch + index)
        nbytes = chunk.nbytes
        if held and (size + nbytes > max_bytes or form(held[-1]) != form(chunk)):
            yield packed(held, window, first)
            held, first, size = [], index, 0
        held.append(chunk)
        size += nbytes
    if held:
        yield packed(held, window, first)


def packed(chunks: Sequence[Chunk], window: Window, first: int) -> Part:
    """Pack the prepared batches of a window, from batch `first` on, into one part."""
    rows = chunks[0] if len(chunks) == 1 else joined(chunks)
    own = Window(rows.x, rows.y, rows.sample_weight, first_batch=window.first_batch + first)
    return Part(own, 0, len(chunks), first)


def batch_rows(window: Window, batch_size: int, index: int) -> Chunk:
    """Return a copy of the rows of batch `index`."""
    low = index * batch_size
    high = min(low + batch_size, window.num_examples)
    rows = np.arange(low, high) if window.order is None else window.order[low:high]
    return Chunk(window.x, window.y, window.sample_weight).taken(rows)


def is_dense(window: Window) -> bool:
    """Whether all arrays of a window are NumPy arrays, and not rows of a sparse matrix."""
    groups = (window.x, window.y, window.sample_weight)
    return all(isinstance(array, np.ndarray) for group in groups for array in group)


def dense(chunk: Chunk) -> Chunk:
    """Return the rows of a chunk as NumPy arrays. Sparse rows have the method `toarray`."""

    def group(arrays: Sequence[Any]) -> list[np.ndarray]:
        return [a if isinstance(a, np.ndarray) else a.toarray() for a in arrays]

    return Chunk(group(chunk.x), group(chunk.y), group(chunk.sample_weight))


def form(chunk: Chunk) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the dtypes and the shapes per example of the arrays of a chunk."""
    return tuple((a.dtype.str, a.shape[1:]) for a in chunk.arrays)


class CarriedExchange:
    """An exchange at certain batches of a window that is trained in parts.

    An engine exchanges at the end of each call. Where a part ends between two exchanges, nothing is
    exchanged, and the number of its examples is added to that of the next exchange.

    Args:
        exchange: `Exchange`.
        stops: Sequence of increasing integers, the batches of the window before which to exchange.
    """

    def __init__(self, exchange: Exchange, stops: Sequence[int]) -> None:
        self._exchange = exchange
        self._stops = [int(stop) for stop in stops]
        self._due: deque[bool] = deque()
        self._carried = 0

    def stops_of(self, part: Part) -> list[int]:
        """Return the stops of a part, in its own batches. The part must be trained next."""
        first, last = part.skipped + part.start, part.skipped + part.stop
        due = [stop for stop in self._stops if first < stop <= last]
        ends = due if last in due else [*due, last]
        self._due.extend(end in due for end in ends)
        return [end - part.skipped for end in ends]

    def __call__(self, vector: np.ndarray, count: int) -> np.ndarray | None:
        """Exchange, or carry the number of examples over to the next exchange."""
        count += self._carried
        if not self._due.popleft():
            self._carried = count
            return None
        self._carried = 0
        return self._exchange(vector, count)
