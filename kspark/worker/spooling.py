"""Write rows to local disk. Without Keras, whose import delays a new process."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kspark.cluster.failures import FactoryError, failure_json
from kspark.shards import Chunk, spool
from kspark.worker.tasks import read_to_end

MUCH_LATER_SECONDS = 120.0
"""How much later than the others a task starts that computes a lost handle again. It is more than
the clocks of driver and executors differ by."""


def spool_shard(
    run_id: str, is_loose: bool, index: int, chunks: Iterator[Chunk]
) -> Iterator[bytes]:
    """Write one partition to local disk; see `kspark.shards.spool`.

    Yields:
        One JSON document: a `ShardHandle`, or a `Failure` if the rows are invalid.
    """
    try:
        yield spool(chunks, index, run_id, is_loose=is_loose).to_json()
    except (ValueError, TypeError, FactoryError) as error:
        read_to_end(chunks)
        yield failure_json(index, error)


@dataclass(frozen=True)
class Again:
    """How shards are written once more.

    A task that is done sooner than Spark waits for a preferred executor frees its slot for the next
    task that prefers the same one, for instance because the rows are cached there. With `hold`, it
    keeps the slot until Spark has given the other tasks to other slots.

    Attributes:
        unneeded: Tuple of folders to delete on the hosts that have them. Defaults to none.
        hold: Float, seconds that a task keeps its slot at least. Defaults to `0`.
        until: Float, the driver's time in seconds until which the first tasks are held. Those that
            start `MUCH_LATER_SECONDS` after that are not held, because Spark computes a handle
            again. Defaults to `0`.
    """

    unneeded: tuple[str, ...] = ()
    hold: float = 0.0
    until: float = 0.0

    def seconds(self, started: float, now: float) -> float:
        """Return how long a task that started at a time, by its own clock, keeps its slot yet."""
        if started > self.until + MUCH_LATER_SECONDS:
            return 0.0
        return max(0.0, started + self.hold - now)


def spool_again(
    again: Again, write: Callable[[int, Any], Iterator[bytes]], index: int, rows: Any
) -> Iterator[bytes]:
    """Write one partition to local disk once more.

    Args:
        again: `Again`.
        write: Function that wrote it the first time, such as `spool_shard`.
        index: Integer, the partition.
        rows: Iterator that `write` takes.

    Yields:
        What `write` yields.
    """
    started = time.time()
    for folder in again.unneeded:
        shutil.rmtree(folder, ignore_errors=True)
    yield from write(index, rows)
    time.sleep(again.seconds(started, time.time()))
