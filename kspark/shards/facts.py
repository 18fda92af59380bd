"""Figures of the work on a shard."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

LearningRate = float | tuple[float | None, ...] | None
"""The learning rate of a model's optimizer: `None` if it has a schedule. A `MultiOptimizer` has a
tuple, with one entry for each of its optimizers."""


@dataclass(frozen=True)
class Usage:
    """What some work on a shard took: figures that add up.

    Attributes:
        seconds: Float, its duration.
        waiting: Float, seconds of it in which the replica waited for an answer.
        bytes_sent: Integer, bytes that the replica sent.
        bytes_received: Integer, bytes that it received.
    """

    seconds: float = 0.0
    waiting: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass(frozen=True)
class ShardFacts:
    """How the training of one shard for one epoch went.

    Attributes:
        host: String, name of the host that trained it.
        pid: Integer, the process.
        batches: Integer, local batches of the epoch.
        seconds: Float, the duration of the epoch.
        num_examples: Integer, examples of the epoch.
        state_kept: Boolean, whether the replica had the shard's state of the epoch before.
        waiting: Float, seconds in which the replica waited for an answer.
        bytes_sent: Integer, bytes that the replica sent.
        bytes_received: Integer, bytes that it received.
        rounds_late: Integer, by how many rounds the delta was late; `None` where rounds wait
            for all shards.
        uncounted: Integer, examples of the epoch that the metrics lack, because the process that
            trained them died before it reported them. `None` if they lack none.
    """

    host: str
    pid: int
    batches: int
    seconds: float
    num_examples: int
    state_kept: bool
    waiting: float
    bytes_sent: int
    bytes_received: int
    rounds_late: int | None = None
    uncounted: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The figures by name, without those that there are not."""
        return {name: value for name, value in asdict(self).items() if value is not None}
