"""Write rows to local disk, and delete them. Without Keras, whose import delays a new process."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from kspark.cluster.failures import failure_json
from kspark.shards import Chunk, Shard, ShardHandle, remove_spools, spool
from kspark.worker.tasks import read_to_end


def spool_shard(run_id: str, index: int, chunks: Iterator[Chunk]) -> Iterator[bytes]:
    """Write one partition to local disk.

    Yields:
        One JSON document: a `ShardHandle`, or a `Failure` if the rows are invalid.
    """
    try:
        yield spool(chunks, index, run_id).to_json()
    except (ValueError, TypeError) as error:
        read_to_end(chunks)
        yield failure_json(index, error)


def clean_up(fit_id: str, index: int, handles: Iterable[bytes]) -> Iterator[int]:
    """Delete the files of a fit on this host, and free its replica."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        Shard.remove(handle)  # Including its state files.
        yield handle.index
    yield from clean_host(fit_id, index, ())


def clean_host(fit_id: str, index: int, rows: Iterable[object]) -> Iterator[int]:
    """Delete the remaining files of a fit, such as incomplete shards, and free its replica."""
    for _ in rows:
        continue
    remove_spools(fit_id)
    # A process without this module has no replica, and need not import Keras to free one.
    state = sys.modules.get("kspark.worker.state")
    if state is not None:
        state.release(fit_id)
    return iter(())
