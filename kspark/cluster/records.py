"""Results of tasks that are too large for a record of a Spark job, in several records.

PySpark refuses a record of more than 2 GiB, and Java holds a record in one array. A result with
larger arrays is cut into pieces on the executor, and the driver joins them again. Other results
stay as they are, and are pickled by Spark only.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from kspark.cluster.bootstrap import ship
from kspark.cluster.results import PartitionFunction

LARGEST_RECORD = 1 << 30
"""Bytes of a result's arrays that are sent in one record."""


@dataclass(frozen=True)
class Piece:
    """A part of a result.

    Attributes:
        data: Bytes of the pickled result without its arrays, or of a part of an array.
        ends: Boolean, whether an array, or the pickled result, ends with this piece.
        last: Boolean, whether this is the last piece of the result.
    """

    data: bytes
    ends: bool
    last: bool


def in_records(task: PartitionFunction) -> PartitionFunction:
    """Return a task whose large results are cut. `joined` joins them on the driver."""
    return partial(ship(cut_results, LARGEST_RECORD), task)


def cut_results(largest: int, task: PartitionFunction, index: int, rows: Any) -> Iterator[Any]:
    """Run a task, and cut its large results into pieces of at most `largest` bytes."""
    for result in task(index, rows):
        yield from cut(result, largest)


def cut(result: Any, largest: int) -> Iterator[Any]:
    """Yield a result, or its pieces if its arrays are larger than `largest` bytes together."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    views = [memoryview(pickled), *(buffer.raw() for buffer in buffers)]
    if sum(len(view) for view in views[1:]) <= largest:
        yield result
        return
    for number, view in enumerate(views):
        for start in range(0, max(len(view), 1), largest):
            data = bytes(view[start : start + largest])
            ends = start + largest >= len(view)
            yield Piece(data, ends, ends and number == len(views) - 1)


def joined(records: Iterable[Any]) -> list[Any]:
    """Return the results of records, the inverse of `cut`.

    Unpickling is safe: this session's own Python workers wrote the pieces.
    """
    results: list[Any] = []
    whole, rest = [], bytearray()
    for record in records:
        if not isinstance(record, Piece):
            results.append(record)
            continue
        rest += record.data
        if record.ends:
            whole.append(rest)
            rest = bytearray()
        if record.last:
            pickled, *buffers = whole
            results.append(pickle.loads(pickled, buffers=buffers))
            whole = []
    return results
