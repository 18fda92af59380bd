"""Write rows to local disk. Without Keras, whose import delays a new process."""

from __future__ import annotations

from collections.abc import Iterator

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
