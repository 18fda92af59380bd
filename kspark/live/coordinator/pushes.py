"""The part of the coordinator for asynchronous replicas: pushes and pulls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from kspark.aggregator import Aggregator
from kspark.errors import AggregationError
from kspark.live.coordinator.clocks import Clocks, Waiter
from kspark.live.coordinator.gate import Gate
from kspark.live.coordinator.progress import FitProgress
from kspark.live.coordinator.rendezvous import steps_of

Check = Callable[[], None]
"""Function that raises if the replica must not be answered. Called with the gate's lock held."""


class Pushes:
    """The asynchronous half of a `Coordinator`, which calls it without the gate's lock.

    Args:
        aggregator: `Aggregator`.
        progress: `FitProgress`.
        gate: `Gate`.
        batch_size: Integer, examples per local batch, or `None` to count every delta as one batch.
        clocks: `Clocks`, or `None` without a bound on the staleness.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        progress: FitProgress,
        gate: Gate,
        batch_size: int | None,
        clocks: Clocks | None,
    ) -> None:
        self._aggregator = aggregator
        self._progress = progress
        self._gate = gate
        self._batch_size = batch_size
        self._clocks = clocks

    def pull(self, shard: int, out: np.ndarray, check: Check) -> tuple[int, bool]:
        """Write the weights that a replica begins with into `out`.

        Returns:
            Tuple of their version, and whether the replica may continue or must ask again.
        """
        answer = partial(self._aggregator.pull, out)
        with self._gate.changed:
            check()
            waiter = self._enter(shard, answer)
        return self._answered(answer, waiter, check)

    def push(
        self,
        shard: int,
        sequence: int,
        base_version: int,
        num_examples: int,
        delta: np.ndarray,
        out: np.ndarray,
        check: Check,
    ) -> tuple[int, bool]:
        """Apply a delta unless it was applied before, and write the answer into `out`.

        Returns:
            The same as `pull`.

        Raises:
            AggregationError: If a push is missing before this one.
        """
        state = self._progress.shards[shard]
        with state.turn:
            with self._gate.changed:
                check()
            if sequence > state.sequence + 1:
                raise AggregationError(
                    f"Shard {shard} sent push {sequence} after push {state.sequence}."
                )
            new = sequence == state.sequence + 1
            steps = self._progress.plans[shard].batches_of(sequence) or steps_of(
                num_examples, self._batch_size
            )
            answer, staleness = self._take(shard, base_version, steps, delta, out, new)
            with self._gate.changed:
                if new:
                    state.sequence = sequence
                    self._progress.take_staleness(shard, sequence, staleness)
                waiter = self._enter(shard, answer)
        return self._answered(answer, waiter, check)

    def _take(
        self,
        shard: int,
        base_version: int,
        steps: int,
        delta: np.ndarray,
        out: np.ndarray,
        new: bool,
    ) -> tuple[Callable[[], int], int]:
        """Apply a new delta. Returns the function that writes the answer, and the staleness."""
        aggregator, staleness = self._aggregator, 0
        share = self._progress.share_of(shard)
        if aggregator.keeps_replica_weights:
            version, staleness = aggregator.exchange(
                delta, share, base_version, out, num_steps=steps, applied=not new
            )
            return partial(int, version), staleness
        if new:
            _, staleness = aggregator.push(delta, share, base_version, steps)
        return partial(aggregator.pull, out), staleness

    def _enter(self, shard: int, answer: Callable[[], int]) -> Waiter | None:
        return None if self._clocks is None else self._clocks.enter(shard, answer)

    def _answered(
        self, answer: Callable[[], int], waiter: Waiter | None, check: Check
    ) -> tuple[int, bool]:
        """Wait until the replica may continue. Returns the version, and whether it may."""
        if self._clocks is None or waiter is None:
            return answer(), True
        with self._gate.changed:
            version = self._clocks.wait(waiter, check)
        return (answer(), False) if version is None else (version, True)
