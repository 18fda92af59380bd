"""Describe the labels and weights of arrays on the driver, as a shard's handle describes them."""

from __future__ import annotations

import numpy as np

from kspark.adapters.base import CHUNK_BYTES
from kspark.shards import TEXT, Chunk, InputSpec, LabelStats, ShardHandle, StoredArray


def summary_of(chunk: Chunk, spec: InputSpec) -> ShardHandle:
    """Return shapes, dtypes and statistics of the labels and sample weights of a chunk."""
    names = [target.name for target in spec.targets[: len(chunk.y)]]
    weights = [f"sample_weight{i}" for i in range(len(chunk.sample_weight))]
    return ShardHandle(
        index=0,
        num_examples=chunk.num_examples,
        path="",
        host="",
        nbytes=0,
        y=tuple(map(described_array, names, chunk.y)),
        sample_weight=tuple(map(described_array, weights, chunk.sample_weight)),
        stats=tuple(map(label_stats, chunk.y)),
    )


def described_array(name: str, array: np.ndarray) -> StoredArray:
    """Return the name, dtype and shape of an array of rows."""
    dtype = TEXT if array.dtype.kind in "OU" else array.dtype.name
    return StoredArray(name, dtype, array.shape[1:], "", 0)


def label_stats(array: np.ndarray) -> LabelStats | None:
    """Return the statistics of labels, or `None` for text. Takes little memory."""
    if array.dtype.kind not in "biuf":
        return None
    stats, rows = LabelStats(), max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        stats = stats.merge(LabelStats.of(array[start : start + rows]))
    return stats
