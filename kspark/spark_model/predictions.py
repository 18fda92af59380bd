"""Join the predictions of all workers to the result of a call."""

from __future__ import annotations

from typing import Any

import numpy as np

from kspark.replica import Replica
from kspark.replica.outputs import outputs_without_rows
from kspark.replica.signature import is_built


def gathered(chunks: list[list[np.ndarray]], replica: Replica, *, as_rows: bool) -> Any:
    """Join chunks of predictions into one array per output, or into one array per row."""
    if not chunks:
        if as_rows or not is_built(replica.model):
            return [] if as_rows else np.empty((0,))
        return replica.structured_outputs(outputs_without_rows(replica.model))
    outputs = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
    if not as_rows:
        return replica.structured_outputs(outputs)
    if len(outputs) == 1:
        return list(outputs[0])
    return [list(row) for row in zip(*outputs, strict=True)]
