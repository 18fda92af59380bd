"""Read the shards of rows that were spooled before, for one fit or one call. Without Keras."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kspark.adapters.base import Task, run_task
from kspark.adapters.rdd import PieceKey, cut_chunks
from kspark.adapters.spooled import StoredPlan
from kspark.cluster.failures import failure_json
from kspark.errors import Described, invalid
from kspark.shards import (
    Block,
    Chunk,
    Shard,
    ShardHandle,
    SpoolMissingError,
    link,
    spool,
)
from kspark.worker.mixing import missing_json
from kspark.worker.tasks import MissingShard

Counts = Mapping[int, int]
"""The number of rows to use of each shard, the first ones."""


def opened(handle: ShardHandle, expected: Counts) -> Shard:
    """Open a shard.

    Raises:
        SpoolMissingError: If its files are not on this host.
        ValueError: If it has fewer rows than it had, because its source was read again.
    """
    if handle.num_examples < expected[handle.index]:
        rule = "spooled rows of a source that gives the same rows each time; persist the source"
        found = (
            f"partition {handle.index}, which was read again after its executor was lost, and has "
            f"{handle.num_examples} rows now instead of {expected[handle.index]}"
        )
        raise invalid("x", rule, Described(found))
    return Shard.open(handle)


def link_shard(
    run_id: str, plan: StoredPlan, counts: Counts, index: int, documents: Iterable[bytes]
) -> Iterator[bytes]:
    """Give a fit its own shards of spooled rows.

    Where the model takes the values as they are on disk, the fit gets links to the same files, so
    that the rows are neither copied nor read. Elsewhere, it gets files with the converted values.

    Yields:
        One JSON document per shard: a `ShardHandle`, a `MissingShard`, or a `Failure` if the model
        does not take the values.
    """
    for document in list(documents):
        handle = ShardHandle.from_json(document)
        count = counts[handle.index]
        try:
            shard = opened(handle, counts)
            if count and count == handle.num_examples and plan.keeps_values(handle):
                yield link(plan.described(handle), run_id).to_json()
            else:
                chunks = plan.chunks(shard, count)
                yield spool(chunks, handle.index, run_id, is_loose=plan.is_loose).to_json()
        except SpoolMissingError:
            yield missing_json(handle)
        except (ValueError, TypeError) as error:
            yield failure_json(handle.index, error)


def read_stored(
    plan: StoredPlan, counts: Counts, task: Task, index: int, documents: Iterable[bytes]
) -> Iterator[Any]:
    """Run a task over the rows of spooled shards, or yield a `MissingShard`."""
    handles = [ShardHandle.from_json(document) for document in documents]
    for handle in handles:
        try:
            opened(handle, counts)
        except SpoolMissingError:
            yield MissingShard.of(handle)
            return

    def read(source: Iterator[ShardHandle]) -> Iterator[Chunk]:
        for handle in source:
            yield from plan.chunks(opened(handle, counts), counts[handle.index])

    yield from run_task(task, index, iter(handles), read)


def cut_stored(
    plan: StoredPlan, counts: Counts, num_partitions: int, index: int, documents: Iterable[bytes]
) -> Iterator[tuple[PieceKey, Block]]:
    """Cut the rows of spooled shards into pieces for other partitions; see `PieceExamples`.

    Raises:
        SpoolMissingError: If files are not on this host. Spark then tries another one.
    """
    for document in list(documents):
        handle = ShardHandle.from_json(document)
        chunks = plan.chunks(opened(handle, counts), counts[handle.index])
        yield from cut_chunks(chunks, num_partitions, handle.index)


def find_missing(index: int, documents: Iterable[bytes]) -> Iterator[int]:
    """Yield the shards whose files are not where their task runs."""
    for document in list(documents):
        handle = ShardHandle.from_json(document)
        try:
            Shard.open(handle)
        except SpoolMissingError:
            yield handle.index
