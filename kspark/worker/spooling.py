"""Write rows to local disk. Without Keras, whose import delays a new process."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

from kspark.cluster.failures import FactoryError, failure_json
from kspark.shards import Chunk, spool
from kspark.worker.tasks import read_to_end


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
        until: Float, the driver's time in seconds after which no task is held any more. Spark may
            compute a handle again much later. Defaults to `0`.
    """

    unneeded: tuple[str, ...] = ()
    hold: float = 0.0
    until: float = 0.0

    def seconds(self, started: float, now: float) -> float:
        """Return how long a task that started at a time, by its own clock, keeps its slot yet."""
        return max(0.0, min(started + self.hold, self.until) - now)


def spool_again(
    again: Again, run_id: str, is_loose: bool, index: int, chunks: Iterator[Chunk]
) -> Iterator[bytes]:
    """Write one partition to local disk once more; see `spool_shard`."""
    started = time.time()
    for folder in again.unneeded:
        shutil.rmtree(folder, ignore_errors=True)
    yield from spool_shard(run_id, is_loose, index, chunks)
    time.sleep(again.seconds(started, time.time()))
