"""How far the shards of a live fit have come.

Plain bookkeeping: no lock, no waiting and no weights. `Coordinator` calls it
with its lock held, but for the numbers behind `ShardProgress.turn`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kspark.errors import AggregationError
from kspark.live.wire import Start, read
from kspark.shards import ShardFacts

Answer = tuple[dict[str, Any], list[np.ndarray]]


@dataclass(frozen=True)
class ShardPlan:
    """What one shard does in an epoch.

    Attributes:
        num_examples: Integer, training examples.
        exchanges: Integer, how often its replica meets the aggregator in an epoch.
    """

    num_examples: int
    exchanges: int


@dataclass
class ShardProgress:
    """How far one shard has come.

    Attributes:
        attempt: Integer, the newest replica that was admitted; -1 before the first.
        connected: Boolean, whether that replica's connection stands.
        sequence: Integer, pushes applied.
        epochs_done: Integer, epochs finished since the fit began.
        lost_since: Float, when its connection ended, or `None`.
        turn: Lock, held while a push is looked at and applied: a push of a superseded
            attempt that is still under way and its repetition must not both count.
    """

    attempt: int = -1
    connected: bool = False
    sequence: int = 0
    epochs_done: int = 0
    lost_since: float | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, attempt: int) -> bool:
        """A replica has come. Returns whether one was here before."""
        returning = self.attempt >= 0
        self.attempt, self.connected, self.lost_since = attempt, True, None
        return returning

    def dismiss(self) -> None:
        """No replica of an earlier job counts any more."""
        self.attempt, self.connected, self.lost_since = -1, False, None


@dataclass
class EpochReport:
    """What the replicas said of one epoch.

    Attributes:
        metrics: Mapping from shard to its metric state (list of arrays).
        facts: Mapping from shard to its `ShardFacts`.
        staleness: List of integers, one per push.
    """

    metrics: dict[int, list[np.ndarray]] = field(default_factory=dict)
    facts: dict[int, ShardFacts] = field(default_factory=dict)
    staleness: list[int] = field(default_factory=list)


class FitProgress:
    """The progress of all shards, epoch by epoch.

    Args:
        plans: Mapping from shard index to `ShardPlan`.
        first_epoch: Integer, epoch number the fit starts at.

    Attributes:
        shards: Mapping from shard index to `ShardProgress`.
        total_examples: Integer, training examples of all shards.
        closed: Integer, the epoch to be closed next: all before it are closed.
    """

    def __init__(self, plans: Mapping[int, ShardPlan], first_epoch: int) -> None:
        self.plans = plans
        self.total_examples = sum(plan.num_examples for plan in plans.values())
        self.first_epoch = first_epoch
        self.shards = {shard: ShardProgress() for shard in plans}
        self.closed = first_epoch
        self._reports: dict[int, EpochReport] = {}
        self._leader_states: dict[int, list[np.ndarray]] = {}

    # -- epochs -----------------------------------------------------------------------------

    def finished(self, epoch: int) -> bool:
        """Whether every shard is through with an epoch."""
        return all(s.epochs_done > epoch - self.first_epoch for s in self.shards.values())

    @property
    def settled(self) -> bool:
        """Whether every shard is through with the epoch that the driver has still to close."""
        return self.finished(self.closed)

    def finish(self, shard: int, epoch: int, sequence: int = 0) -> None:
        """A shard is through with an epoch, after so many pushes."""
        state = self.shards[shard]
        state.epochs_done = max(state.epochs_done, epoch - self.first_epoch + 1)
        state.sequence = max(state.sequence, sequence)

    def catch_up(self, shard: int) -> None:
        """A shard's pushes tell which epochs it is through with, if nobody lived to say so."""
        state = self.shards[shard]
        done = state.sequence // self.plans[shard].exchanges
        state.epochs_done = max(state.epochs_done, done)

    def close(self, epoch: int) -> None:
        """The driver is through with an epoch."""
        self.closed = epoch + 1
        self._reports = {e: r for e, r in self._reports.items() if e > epoch}

    def restart(self) -> None:
        """The open epoch starts again for all shards."""
        self._reports.pop(self.closed, None)
        for state in self.shards.values():
            state.epochs_done = self.closed - self.first_epoch

    def share_of(self, shard: int) -> float:
        """A shard's part of all examples."""
        return self.plans[shard].num_examples / self.total_examples

    def start_of(self, shard: int) -> Start:
        """Where a replica that does not wait for others goes on: after its last push."""
        sequence = self.shards[shard].sequence
        epoch = self.epoch_of(shard, sequence + 1)
        position = sequence % self.plans[shard].exchanges
        return Start(epoch, sequence, position)

    def epoch_of(self, shard: int, sequence: int) -> int:
        """The epoch that a shard's push belongs to; pushes are counted from 1."""
        return self.first_epoch + (sequence - 1) // self.plans[shard].exchanges

    # -- reports ----------------------------------------------------------------------------

    def report_of(self, epoch: int) -> EpochReport:
        """The report of an epoch, for the driver or to add to."""
        return self._reports.setdefault(epoch, EpochReport())

    def take_metrics(
        self, shard: int, epoch: int, metrics: list[np.ndarray], facts: ShardFacts
    ) -> None:
        """A shard's metrics and figures of an epoch. The last word counts; a late one does not."""
        if epoch >= self.closed:
            report = self.report_of(epoch)
            report.metrics[shard], report.facts[shard] = metrics, facts

    def take_staleness(self, shard: int, sequence: int, staleness: int) -> None:
        """A shard's push was applied to weights that had changed so often since its pull."""
        self.report_of(self.epoch_of(shard, sequence)).staleness.append(staleness)

    def take_leader_state(self, epoch: int, arrays: Sequence[np.ndarray]) -> None:
        """Optimizer state of the first replica after an epoch. That of the epoch before stays."""
        kept = {e: a for e, a in self._leader_states.items() if e == epoch - 1}
        self._leader_states = {**kept, epoch: list(arrays)}

    def leader_state(self, epoch: int) -> list[np.ndarray]:
        """Optimizer state of the first replica after an epoch; empty if it is not known."""
        return list(self._leader_states.get(epoch, ()))

    def note(self, shard: int, meta: dict[str, Any], arrays: Sequence[np.ndarray]) -> Answer:
        """Take in a report that changes nothing but the books.

        Raises:
            AggregationError: If `meta["kind"]` is unknown.
            ProtocolError: If its figures are malformed.
        """
        kind = meta.get("kind")
        if kind == "metrics":
            facts = read(ShardFacts, meta.get("facts"))
            self.take_metrics(shard, int(meta["epoch"]), list(arrays), facts)
            return {}, []
        if kind == "state":
            self.take_leader_state(int(meta["epoch"]), arrays)
            return {}, []
        if kind == "state_request":
            return {}, self.leader_state(int(meta["epoch"]))
        raise AggregationError(f"A report of kind {kind!r} is unknown.")

    # -- who is here ------------------------------------------------------------------------

    def lost(self, now: float, timeout: float) -> list[int]:
        """Shards whose replica has been gone for too long."""
        since = {s: p.lost_since for s, p in self.shards.items() if p.lost_since is not None}
        return sorted(s for s, moment in since.items() if now - moment > timeout)

    def never_connected(self) -> list[int]:
        """Shards that no replica of the current job has come for, sorted."""
        return sorted(s for s, p in self.shards.items() if p.attempt < 0)
