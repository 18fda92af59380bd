"""Tell the driver which executors answer, while tasks on others may never end.

The driver gets the results of a Spark job when all of its tasks have ended. An accumulator grows
with each task that ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from kspark.shards import ShardHandle, is_here

if TYPE_CHECKING:
    from pyspark import Accumulator


def answer(
    documents: Sequence[bytes],
    answers: Sequence[Accumulator[int]],
    index: int,
    rows: Iterable[object],
) -> Iterator[int]:
    """Count this task for each shard whose disk is here.

    Args:
        documents: Sequence of shard handles as JSON, one per executor.
        answers: Sequence of accumulators, one per handle.
        index: Integer, the partition.
        rows: Iterable, which carries no information.
    """
    for _ in rows:
        continue
    for document, count in zip(documents, answers, strict=True):
        if is_here(ShardHandle.from_json(document)):
            count.add(1)
    return iter(())
