"""Rows to local disk, and their end. Needs no Keras: a new process must not wait for it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from kspark.cluster.failures import failure_json
from kspark.shards import Chunk, Shard, ShardHandle, remove_spools, spool
from kspark.worker.tasks import read_to_end


def spool_shard(run_id: str, index: int, chunks: Iterator[Chunk]) -> Iterator[bytes]:
    """Write one partition to local disk and name it.

    Yields:
        One JSON document: a `ShardHandle`, or a `Failure` when the rows are not usable.
    """
    try:
        yield spool(chunks, index, run_id).to_json()
    except (ValueError, TypeError) as error:
        read_to_end(chunks)
        yield failure_json(index, error)


def clean_up(fit_id: str, index: int, handles: Iterable[bytes]) -> Iterator[int]:
    """Delete what the fit left on this host, and forget its replica."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        Shard.remove(handle)  # and the state files in it
        yield handle.index
    yield from clean_host(fit_id, index, ())


def clean_host(fit_id: str, index: int, rows: Iterable[object]) -> Iterator[int]:
    """Delete what no handle names on this host: shards that were written again, or half."""
    for _ in rows:
        continue
    remove_spools(fit_id)
    forget(fit_id)
    return iter(())


def forget(fit_id: str) -> None:
    """Let go of the fit's replica, if this process has one: it has the module then, too."""
    state = sys.modules.get("kspark.worker.state")
    if state is not None:
        state.release(fit_id)
