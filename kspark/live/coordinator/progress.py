"""The progress of the shards of a live fit.

This module contains no lock, wait or weights. `Coordinator` calls it with its lock held, except
for numbers that `ShardProgress.turn` protects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kspark.live.coordinator.running import Running
from kspark.live.wire import Start
from kspark.live.wire.reports import (
    MetricsReport,
    ProgressReport,
    Report,
    StateReport,
    StateRequest,
)
from kspark.shards import ShardFacts

Answer = tuple[dict[str, Any], list[np.ndarray]]

Apart = Callable[[int, int], int]
"""Function of a shard and an attempt, which alone may push for the shard without the driver from
then on. Returns the number of the shard's pushes so far that the driver does not get."""


@dataclass(frozen=True)
class ShardPlan:
    """The work of one shard in an epoch.

    Attributes:
        num_examples: Integer, training examples.
        exchanges: Integer, number of exchanges with the aggregator per epoch; 0 if nobody knows it.
            Then a shard says when it has finished an epoch.
        batches: Integer, number of batches per epoch. Defaults to `0`: not known, so that the
            batches of an exchange are counted by its examples.
        local: Integer, number of batches between two exchanges. Defaults to `0`.
    """

    num_examples: int
    exchanges: int
    batches: int = 0
    local: int = 0

    def batches_of(self, sequence: int) -> int:
        """Return the number of batches of a push, counted from 1 since the fit began."""
        if not self.batches:
            return 0
        exchange = (sequence - 1) % self.exchanges
        return min(self.local, self.batches - exchange * self.local)


@dataclass
class ShardProgress:
    """The progress of one shard.

    Attributes:
        attempt: Integer, the newest admitted attempt. Defaults to `-1`, none.
        connected: Boolean, whether that attempt is connected. Defaults to `False`.
        sequence: Integer, number of applied pushes. Defaults to `0`.
        epochs_done: Integer, epochs finished since the fit began. Defaults to `0`.
        began: Integer, number of pushes in these epochs. Defaults to `0`.
        lost_since: Float, time at which its connection ended, in seconds of `time.monotonic`.
            Defaults to `None`, not lost.
        turn: Lock, held while a push is checked and applied. Otherwise a push of a superseded
            attempt and its repetition by the new attempt could both be applied.
    """

    attempt: int = -1
    connected: bool = False
    sequence: int = 0
    epochs_done: int = 0
    began: int = 0
    lost_since: float | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, attempt: int) -> bool:
        """Admit an attempt. Returns whether an attempt was admitted before."""
        returning = self.attempt >= 0
        self.attempt, self.connected, self.lost_since = attempt, True, None
        return returning

    def dismiss(self) -> None:
        """Forget the attempts of an earlier job."""
        self.attempt, self.connected, self.lost_since = -1, False, None


@dataclass
class EpochReport:
    """The replicas' reports of one epoch.

    Attributes:
        metrics: Mapping from shard to its metric state, a list of arrays.
        facts: Mapping from shard to its `ShardFacts`.
        counters: Mapping from shard to the step counters of its replica.
        staleness: List of integers, the staleness of each push.
    """

    metrics: dict[int, list[np.ndarray]] = field(default_factory=dict)
    facts: dict[int, ShardFacts] = field(default_factory=dict)
    counters: dict[int, tuple[int, ...]] = field(default_factory=dict)
    staleness: list[int] = field(default_factory=list)


class FitProgress:
    """The progress of all shards, epoch by epoch.

    Args:
        plans: Mapping from shard index to `ShardPlan`.
        first_epoch: Integer, the first epoch of the fit.
        running: `Running`. Defaults to `None`, a new one.

    Attributes:
        shards: Mapping from shard index to `ShardProgress`.
        total_examples: Integer, training examples of all shards.
        closed: Integer, the open epoch. All epochs before it are closed.
        running: `Running`, the last progress of each shard within an epoch.
    """

    def __init__(
        self, plans: Mapping[int, ShardPlan], first_epoch: int, running: Running | None = None
    ) -> None:
        self.plans = plans
        self.total_examples = sum(plan.num_examples for plan in plans.values())
        self.first_epoch = first_epoch
        self.shards = {shard: ShardProgress() for shard in plans}
        self.closed = first_epoch
        self.running = Running() if running is None else running
        self._reports: dict[int, EpochReport] = {}
        self._leader_states: dict[int, list[np.ndarray]] = {}

    # -- attempts ---------------------------------------------------------------------------

    def admit(self, shard: int, attempt: int, apart: Apart | None) -> bool:
        """Admit an attempt, also after pushes that the driver did not get; see `Apart`.

        Returns:
            Boolean, whether an attempt was admitted before.
        """
        state = self.shards[shard]
        if apart is not None:
            state.sequence = max(state.sequence, apart(shard, attempt))
        return state.admit(attempt)

    # -- epochs -----------------------------------------------------------------------------

    def finished(self, epoch: int) -> bool:
        """Whether every shard has finished an epoch."""
        return all(s.epochs_done > epoch - self.first_epoch for s in self.shards.values())

    @property
    def settled(self) -> bool:
        """Whether every shard has finished the open epoch, which the driver has not closed."""
        return self.finished(self.closed)

    def finish(self, shard: int, epoch: int, sequence: int = 0) -> None:
        """Note that a shard has finished an epoch, after `sequence` pushes."""
        state = self.shards[shard]
        state.sequence = max(state.sequence, sequence)
        if epoch - self.first_epoch + 1 > state.epochs_done:
            state.epochs_done, state.began = epoch - self.first_epoch + 1, state.sequence

    def catch_up(self, shard: int) -> None:
        """Derive finished epochs from pushes, because a replica may die before it reports one."""
        state = self.shards[shard]
        state.epochs_done = max(state.epochs_done, self.place_of(shard)[0])

    def epochs_of(self, shard: int) -> int:
        """Return the first epoch that a shard has not finished."""
        return self.first_epoch + self.shards[shard].epochs_done

    def place_of(self, shard: int) -> tuple[int, int]:
        """Return of how many epochs a shard has made all pushes, and its pushes since then."""
        state, exchanges = self.shards[shard], self.plans[shard].exchanges
        if exchanges:
            return divmod(state.sequence, exchanges)
        return state.epochs_done, state.sequence - state.began

    def close(self, epoch: int) -> None:
        """Close an epoch, and drop its report."""
        self.closed = epoch + 1
        self._reports = {e: r for e, r in self._reports.items() if e > epoch}

    def restart(self) -> None:
        """Start the open epoch again for all shards."""
        self._reports.pop(self.closed, None)
        for state in self.shards.values():
            state.epochs_done = self.closed - self.first_epoch

    def share_of(self, shard: int) -> float:
        """Return a shard's fraction of all examples."""
        return self.plans[shard].num_examples / self.total_examples

    def start_of(self, shard: int) -> Start:
        """Return where an asynchronous replica begins: after its shard's last push."""
        epochs, position = self.place_of(shard)
        return Start(self.first_epoch + epochs, self.shards[shard].sequence, position)

    def epoch_of(self, shard: int, sequence: int) -> int:
        """Return the epoch of a shard's push. Pushes are counted from 1."""
        exchanges = self.plans[shard].exchanges
        if not exchanges:  # It is the last push, and the shard has not finished its epoch.
            return self.first_epoch + self.shards[shard].epochs_done
        return self.first_epoch + (sequence - 1) // exchanges

    # -- reports ----------------------------------------------------------------------------

    def report_of(self, epoch: int) -> EpochReport:
        """Return the report of an epoch, and create it if necessary."""
        return self._reports.setdefault(epoch, EpochReport())

    def take_metrics(self, shard: int, given: MetricsReport, metrics: list[np.ndarray]) -> None:
        """Record a shard's metrics and figures. A later report replaces an earlier one.

        It does not if its metrics lack more examples: the process before may have died after its
        report, and before its last push. Reports of closed epochs are ignored.
        """
        if given.epoch < self.closed:
            return
        report = self.report_of(given.epoch)
        known = report.facts.get(shard)
        if known is None or (given.facts.uncounted or 0) <= (known.uncounted or 0):
            report.metrics[shard], report.facts[shard] = metrics, given.facts
            report.counters[shard] = given.counters

    def take_staleness(self, shard: int, sequence: int, staleness: int) -> None:
        """Record the staleness of a push: the versions between its pull and its application."""
        self.report_of(self.epoch_of(shard, sequence)).staleness.append(staleness)

    def take_leader_state(self, epoch: int, arrays: Sequence[np.ndarray]) -> None:
        """Keep the leader's optimizer state after an epoch, and that of the epoch before."""
        kept = {e: a for e, a in self._leader_states.items() if e == epoch - 1}
        self._leader_states = {**kept, epoch: list(arrays)}

    def leader_state(self, epoch: int) -> list[np.ndarray]:
        """Return the leader's optimizer state after an epoch; empty if it is unknown."""
        return list(self._leader_states.get(epoch, ()))

    def note(self, shard: int, report: Report, arrays: Sequence[np.ndarray]) -> Answer:
        """Record or answer a report that does not change the progress."""
        if isinstance(report, MetricsReport):
            self.take_metrics(shard, report, list(arrays))
        elif isinstance(report, ProgressReport):
            self.running.take(shard, report, arrays)
        elif isinstance(report, StateReport):
            self.take_leader_state(report.epoch, arrays)
        elif isinstance(report, StateRequest):
            return {}, self.leader_state(report.epoch)
        return {}, []

    # -- lost replicas ------------------------------------------------------------------------

    def lost(self, now: float, timeout: float) -> list[int]:
        """Return the shards, sorted, whose replica has been lost for over `timeout` seconds."""
        since = {s: p.lost_since for s, p in self.shards.items() if p.lost_since is not None}
        return sorted(s for s, moment in since.items() if now - moment > timeout)

    def never_connected(self) -> list[int]:
        """Return the shards, sorted, for which no replica of the current job has connected."""
        return sorted(s for s, p in self.shards.items() if p.attempt < 0)
