"""How far the shards have come within an epoch, from their last reports. For the display only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kspark.live.wire.reports import ProgressReport


@dataclass(frozen=True)
class Moment:
    """What all shards together have trained of an epoch.

    Attributes:
        num_examples: Integer. Defaults to `0`.
        metrics: List of metric states, one per shard that has sent one, in the order of the
            shards. Defaults to `[]`.
    """

    num_examples: int = 0
    metrics: list[list[np.ndarray]] = field(default_factory=list)


class Running:
    """The last `ProgressReport` of each shard. The caller protects it with a lock."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[ProgressReport, list[np.ndarray]]] = {}

    def take(self, shard: int, report: ProgressReport, arrays: Sequence[np.ndarray]) -> None:
        """Keep a report instead of the shard's last one, also if an epoch has started again."""
        self._last[shard] = report, list(arrays)

    def at(self, epoch: int) -> Moment:
        """Return what is known of an epoch. A shard that is ahead of it has trained all of it."""
        done, metrics = 0, []
        for _, (report, arrays) in sorted(self._last.items()):
            if report.epoch > epoch:
                done += report.total
            elif report.epoch == epoch:
                done += min(report.num_examples, report.total)
                metrics += [arrays] if arrays else []
        return Moment(max(done, 0), metrics)
