"""Rows that a function of the user makes beside the data: the first batch, and an epoch's windows.

The function is called anew in each epoch. Nothing is written to disk. The rows of a window are in
memory, and one window is read ahead.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from kspark.adapters.factories import FactoryRows, first_steps, no_rows
from kspark.cluster.failures import FactoryError, failure_json
from kspark.shards import (
    TEXT,
    Chunk,
    LabelStats,
    ShardHandle,
    StoredArray,
    Window,
    joined,
    mark_in,
    num_batches,
    spool_directory,
)
from kspark.worker.tasks import FitTask

WINDOW_BYTES = 64 << 20
"""Size of a window: while it trains, another one is in memory."""

WINDOW_SECONDS = 1.0
"""The longest time to read a window, if it takes less long to read a batch."""


def open_stream(
    rows: FactoryRows,
    run_id: str,
    seeds: Sequence[int],
    limited: bool,
    index: int,
    numbers: Iterator[Any],
) -> Iterator[bytes]:
    """Look at the first batch of a worker, and make the folder beside which its state is kept.

    Args:
        rows: `FactoryRows`.
        run_id: String that names the fit's files.
        seeds: Sequence of integers, for the random generators of each worker.
        limited: Boolean, whether an epoch has a fixed number of batches.
        index: Integer, the worker.
        numbers: Iterator, which carries no information.

    Yields:
        One JSON document: a `ShardHandle`, or a `Failure`.
    """
    for _ in numbers:
        pass
    try:
        with closing(rows.chunks(index, seeds[index], limited=limited)) as chunks:
            chunk = next(chunks, None)
        if chunk is None:
            raise no_rows(index, rows.num_workers)
    except (ValueError, TypeError, FactoryError) as error:
        yield failure_json(index, error)
        return
    folder = spool_directory(run_id, index)
    path = os.path.join(folder, f"stream-{index:05d}")
    os.makedirs(path, mode=0o700, exist_ok=True)
    mark = mark_in(folder, spool_directory(run_id))
    yield replace(handle_of(chunk, rows, index, path), mark=mark).to_json()


def handle_of(chunk: Chunk, rows: FactoryRows, index: int, path: str) -> ShardHandle:
    """Return the handle of a shard that begins with a batch."""

    def described(arrays: list[np.ndarray], names: list[str]) -> tuple[StoredArray, ...]:
        return tuple(
            StoredArray(name, TEXT if a.dtype == object else a.dtype.name, a.shape[1:], "", 0)
            for name, a in zip(names, arrays, strict=True)
        )

    return ShardHandle(
        index,
        1,
        path,
        platform.node(),
        0,
        described(chunk.x, [spec.name for spec in rows.spec.inputs]),
        described(chunk.y, [spec.name for spec in rows.spec.targets]),
        described(
            chunk.sample_weight, [f"sample_weight{i}" for i in range(len(chunk.sample_weight))]
        ),
        tuple(None if a.dtype == object else LabelStats.of(a) for a in chunk.y),
        first_batch=chunk.num_examples,
    )


def stream_windows(fit: FitTask, shard: int, epoch: int) -> Generator[Window, None, None]:
    """Read the rows that a worker trains in an epoch: all of its data, or a number of batches.

    If the data ends before that number is reached, the function is called again.

    Args:
        fit: `FitTask` with a `stream`; others have no windows here.
        shard: Integer.
        epoch: Integer.

    Yields:
        `Window` of whole batches. The last batch of the data may have fewer rows.

    Raises:
        ValueError: If the data has no rows, or rows that do not fit.
        FactoryError: If the user's code raises an exception.
    """
    stream = fit.stream
    if stream is None:
        return
    size, limit = fit.plan.batch_size, fit.steps(shard).batches if fit.limited else None
    number = done = 0
    while limit is None or done < limit:
        before, seed = done, fit.plan.data_seed(shard, epoch, number)
        with closing(stream.chunks(shard, seed, limited=limit is not None)) as made:
            chunks = made if limit is None else first_steps(made, limit - done, size)
            for window in windows_of_chunks(chunks, size):
                done += num_batches(window.num_examples, size)
                yield window
        if done == before:
            raise no_rows(shard, stream.num_workers)
        if limit is None:
            return
        number += 1


def windows_of_chunks(chunks: Iterator[Chunk], batch_size: int) -> Iterator[Window]:
    """Join chunks to windows of whole batches, of at most about `WINDOW_BYTES` each.

    Args:
        chunks: Iterator of `Chunk`.
        batch_size: Integer.

    Raises:
        ValueError: If a batch would have rows of different shapes.
    """
    waiting: list[Chunk] = []
    rows = nbytes = 0  # of those that wait
    began = time.perf_counter()
    for chunk in chunks:
        if waiting and shapes_of(chunk) != shapes_of(waiting[0]):
            check_whole(waiting[0], chunk, rows, batch_size)
            yield joined(waiting).window()
            waiting, rows, nbytes = [], 0, 0
        waiting.append(chunk)
        rows += chunk.num_examples
        nbytes += chunk.nbytes
        whole = rows - rows % batch_size
        is_full = nbytes >= WINDOW_BYTES
        if whole and (is_full or time.perf_counter() - began >= WINDOW_SECONDS):
            read = joined(waiting)
            waiting = [read.rows(whole, rows)] if whole < rows else []
            rows, nbytes = rows - whole, sum(c.nbytes for c in waiting)
            yield read.rows(0, whole).window()
            began = time.perf_counter()
    if waiting:
        yield joined(waiting).window()


def shapes_of(chunk: Chunk) -> list[list[tuple[int, ...]]]:
    """Return the shapes of a chunk's rows, by groups of arrays."""
    groups = (chunk.x, chunk.y, chunk.sample_weight)
    return [[array.shape[1:] for array in group] for group in groups]


def check_whole(before: Chunk, chunk: Chunk, rows: int, batch_size: int) -> None:
    """Check that rows of another shape begin with a batch, and have the same arrays.

    Raises:
        ValueError: If they do not.
    """
    old, new = shapes_of(before), shapes_of(chunk)
    if list(map(len, old)) != list(map(len, new)):
        raise ValueError(
            "All batches of `x` must have the same inputs, labels and sample weights. Received: "
            f"batches of {list(map(len, old))} and of {list(map(len, new))} of them"
        )
    if rows % batch_size:
        raise ValueError(
            f"`x` must give rows of one shape within a batch. Received: rows of shapes {old} and "
            f"{new} in a batch of {batch_size} rows. Let the data have batches of equal size, with "
            "padded rows, and leave `batch_size` at `None`."
        )
