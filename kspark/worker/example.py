"""Read the first row of the examples. Without Keras, whose import delays a new process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kspark.cluster.failures import FactoryError, failure_json
from kspark.shards import Chunk, dense
from kspark.worker.tasks import read_to_end


def first_features_of_chunks(index: int, chunks: Iterator[Chunk]) -> Iterator[Any]:
    """Yield the features in the first row of a partition, or a `Failure` if they are not usable."""
    try:
        first = next((chunk for chunk in chunks if chunk.num_examples), None)
        if first is not None:
            yield [dense(rows) for rows in first.rows(0, 1).x]
    except (ValueError, TypeError, FactoryError) as error:
        read_to_end(chunks)
        yield failure_json(index, error)
