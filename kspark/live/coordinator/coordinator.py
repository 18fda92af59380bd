"""The door to a live fit's shared state, and the lock in it.

One object per live `fit`, on the driver. The transport calls it from one
thread per replica; the thread that runs `fit` waits on it for epochs. It
opens no socket and starts no thread.

* Asynchronous and hogwild replicas `push` and go on. A push carries the
  shard's sequence number; one that was applied already is answered, not
  applied, so a retried task loses nothing and repeats nothing. With a bound on
  their staleness, those that are too far ahead wait (see `clocks`).
* Synchronous replicas meet in `reduce` (see `rendezvous`). When one of them
  comes back as a new attempt in the middle of an epoch, the others are
  answered with `restart`.
* An epoch is *settled* when every shard is through with it, and *closed* when
  the driver is too (metrics, callbacks). Synchronous replicas are held in
  between, because a callback may change the weights. A settled epoch never
  starts again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kspark.aggregator import Aggregator
from kspark.errors import AggregationError, Failure
from kspark.live.coordinator.clocks import Clocks
from kspark.live.coordinator.gate import Gate
from kspark.live.coordinator.meetings import Meetings
from kspark.live.coordinator.progress import Answer, EpochReport, FitProgress, ShardPlan
from kspark.live.coordinator.pushes import Pushes
from kspark.live.coordinator.rendezvous import Rendezvous
from kspark.live.wire import Instructions, Restart, SharedOffer, Welcome, read
from kspark.weights import PackingScheme, Whole

logger = logging.getLogger("kspark")


class Coordinator:
    """The shared state of a live `fit`.

    Args:
        aggregator: `Aggregator`.
        shards: Mapping from shard index to `ShardPlan`; only shards with examples.
        packing: `PackingScheme` of what replicas bring. Mean gradients are answered in it too.
        first_epoch: Integer, epoch number the fit starts at.
        merge_gradients: Boolean. Synchronous replicas exchange gradients, and
            weights at the end of the epoch; otherwise deltas.
        batch_size: Integer, examples per local batch, for rules that count the batches
            behind a delta. `None`: every delta counts as one batch.
        max_staleness: Integer, how many exchanges an asynchronous replica may be ahead of
            the slowest; `None`: as far as it gets.
        timeout: Float, seconds to wait for a replica that is not connected.

    Attributes:
        failure: `Failure` of the first replica that reported one, or `None`.
        missing: Set of shards whose replica did not find the shard's files.
        instructions: `Instructions` for all replicas.
        offers: Mapping from shard to the `SharedOffer` in its welcome.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        shards: dict[int, ShardPlan],
        packing: PackingScheme,
        *,
        first_epoch: int = 0,
        merge_gradients: bool = False,
        batch_size: int | None = None,
        max_staleness: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.aggregator = aggregator
        self.shards = shards
        self.total_examples = sum(s.num_examples for s in shards.values())
        self.steps = max(s.exchanges for s in shards.values())
        self.timeout = timeout
        self.failure: Failure | None = None
        self.missing: set[int] = set()
        self.instructions = Instructions()
        self.offers: dict[int, SharedOffer] = {}
        self._oldest_attempt = 0
        self._gate = Gate()
        self._progress = FitProgress(shards, first_epoch)
        self._clocks: Clocks | None = None
        if max_staleness is not None:
            self._clocks = Clocks(self._progress, self._gate, max_staleness, self.steps, timeout)
        self._pushes = Pushes(aggregator, self._progress, self._gate, batch_size, self._clocks)
        self._meetings: Meetings | None = None
        if aggregator.mode == "synchronous":
            examples = {s: p.num_examples for s, p in shards.items()}
            replies = (packing if merge_gradients else Whole(packing.spec)).packer()
            rendezvous = Rendezvous(
                aggregator, examples, self.steps, merge_gradients, replies, batch_size
            )
            self._meetings = Meetings(rendezvous, self._progress, self._gate, timeout)

    # -- called by the transport, one thread per replica ---------------------------------

    def hello(self, shard: int, attempt: int) -> Welcome:
        """Admit a replica and tell it where its shard stands.

        Raises:
            AggregationError: If the shard is unknown or a newer attempt was admitted.
        """
        with self._gate.changed:
            self._gate.check_open()
            state = self._progress.shards.get(shard)
            if state is None:
                raise AggregationError(f"Shard {shard} takes no part in this fit.")
            if attempt < max(state.attempt, self._oldest_attempt):
                raise AggregationError(f"Attempt {attempt} of shard {shard} was superseded.")
            returning = state.admit(attempt)
            if self._meetings is None:
                self._progress.catch_up(shard)
            elif returning:
                self._meetings.restart()
            self._gate.changed.notify_all()
            return self._welcome(shard)

    def _welcome(self, shard: int) -> Welcome:
        return Welcome(
            self.steps,
            leader=shard == min(self.shards),
            version=self.aggregator.version,
            start=self._meetings.start() if self._meetings else self._progress.start_of(shard),
            instructions=self.instructions,
            shared=self.offers.get(shard),
        )

    def pull(self, shard: int, attempt: int, out: np.ndarray) -> tuple[int, Instructions]:
        """Fill `out` with the current weights, once the driver has closed a settled epoch.

        With a bound on the staleness, once the replica may go on. Instructions to hold: it may
        not yet, and asks again.

        Raises:
            AggregationError: If the attempt is superseded.
            ConnectionLostError: If the driver does not close the epoch in time.
        """
        check = partial(self._check_current, shard, attempt)
        if self._meetings is None:
            version, free = self._pushes.pull(shard, out, check)
            return version, self._instructions(free)
        with self._gate.changed:
            check()
            self._meetings.wait_until_closed()
        return self.aggregator.pull(out), self.instructions

    def push(
        self,
        shard: int,
        attempt: int,
        sequence: int,
        base_version: int,
        num_examples: int,
        delta: np.ndarray,
        out: np.ndarray,
    ) -> tuple[int, Instructions]:
        """Apply a delta unless it was applied before, and fill `out` with fresh weights.

        A replica that keeps weights of its own is answered with the gap (see `Aggregator`).
        With a bound on the staleness, the answer comes when the replica may go on; as in `pull`.

        Raises:
            AggregationError: If the attempt is superseded, or the sequence has a gap.
        """
        check = partial(self._check_current, shard, attempt)
        numbers = (sequence, base_version, num_examples)
        version, free = self._pushes.push(shard, *numbers, delta, out, check)
        return version, self._instructions(free)

    def _instructions(self, free: bool, restart: Restart | None = None) -> Instructions:
        """Instructions for a replica that may go on, or has to ask again."""
        return replace(self.instructions, hold=not free, restart=restart)

    def reduce(
        self,
        shard: int,
        attempt: int,
        sequence: int,
        num_examples: int,
        vector: np.ndarray | None,
        out: np.ndarray,
    ) -> tuple[int, Instructions, int | np.ndarray]:
        """Meet all other replicas at one step; the last to come merges.

        Args:
            shard: Integer.
            attempt: Integer.
            sequence: Integer, generation and step (see `rendezvous`).
            num_examples: Integer, examples behind `vector`.
            vector: Gradient or delta of this replica, or `None` if it has none left.
            out: Buffer for the answer.

        Returns:
            Triple: version, instructions, number of elements of `out` to send; or a mean
            gradient, which all share, or its packed bytes.

        Raises:
            AggregationError: If the vectors cannot be merged; the fit is over then.
            ConnectionLostError: If another replica does not come in time.
        """
        if self._meetings is None:
            raise AggregationError(f'Nobody meets in mode "{self.aggregator.mode}".')
        with self._gate.changed:
            self._check_current(shard, attempt)
            merged = self._meetings.exchange(shard, sequence, vector, num_examples)
            if merged is None:
                again = self._instructions(True, self._meetings.again())
                return self.aggregator.version, again, 0
        if merged is not self.aggregator.weights:
            return self.aggregator.version, self.instructions, merged
        np.copyto(out, merged)
        return self.aggregator.version, self.instructions, merged.size

    def report(
        self, shard: int, attempt: int, meta: dict[str, Any], arrays: Sequence[np.ndarray]
    ) -> Answer:
        """Take in what a replica says beside weights; `meta["kind"]` says what it is."""
        handlers = {
            "epoch": self._take_epoch,
            "failure": self._take_failure,
            "missing": self._take_missing,
        }
        with self._gate.changed:
            self._check_current(shard, attempt)
            handler = handlers.get(str(meta.get("kind")))
            if handler is None:
                return self._progress.note(shard, meta, arrays)
            return handler(shard, meta), []

    def lost(self, shard: int, attempt: int, reason: str) -> None:
        """A replica's connection ended. It may come back as a new attempt."""
        with self._gate.changed:
            state = self._progress.shards.get(shard)
            if state is not None and state.attempt == attempt and state.connected:
                state.connected, state.lost_since = False, time.monotonic()
                self._gate.changed.notify_all()
        logger.debug("Shard %d, attempt %d: connection ended: %s", shard, attempt, reason)

    def close(self, reason: str = "the fit is over") -> None:
        """End every wait, now and from now on."""
        self._gate.close(reason)

    @property
    def merges(self) -> int:
        """How often an epoch changes the weights, or merges gradients."""
        if self._meetings is not None:
            return self.steps
        return sum(shard.exchanges for shard in self.shards.values())

    # -- called by the thread that runs `fit` ---------------------------------------------

    def begin_job(self, oldest_attempt: int, stop_epoch: int | None = None) -> None:
        """A new Spark job is about to run the replicas; none of an earlier job may come back.

        An epoch that an earlier job left unfinished starts again when it is synchronous.

        Args:
            oldest_attempt: Integer, all attempts with smaller numbers are of earlier jobs.
            stop_epoch: Integer, epoch that the job stops before, if known.
        """
        with self._gate.changed:
            self._oldest_attempt = oldest_attempt
            self.missing.clear()
            for state in self._progress.shards.values():
                state.dismiss()
            if self._clocks is not None:
                self._clocks.begin_job(stop_epoch)
            if self._meetings is not None:
                self._meetings.restart()
            self._gate.changed.notify_all()

    def wait_for_epoch(self, epoch: int, seconds: float) -> EpochReport | None:
        """Wait until every shard has finished `epoch`, at most `seconds`.

        Returns:
            The `EpochReport`, or `None` if the epoch is not finished yet.

        Raises:
            KSparkError: If what the replicas brought could not be merged.
        """
        with self._gate.changed:
            self._gate.changed.wait_for(
                lambda: self._progress.finished(epoch) or self._gate.reason is not None, seconds
            )
            if self._gate.error is not None:
                raise self._gate.error
            return self._progress.report_of(epoch) if self._progress.finished(epoch) else None

    def close_epoch(self, epoch: int, *, stop: bool, learning_rate: float | None) -> None:
        """Let synchronous replicas, who wait for this, begin the next epoch."""
        with self._gate.changed:
            self.instructions = Instructions(stop, learning_rate)
            self._progress.close(epoch)
            if self._meetings is not None:
                self._meetings.begin_epoch()
            if self._clocks is not None and stop:
                self._clocks.stop()
            self._gate.changed.notify_all()

    def never_connected(self) -> list[int]:
        """Shards that no task of the current job has connected for, sorted."""
        with self._gate.changed:
            return self._progress.never_connected()

    # -- inside the lock ---------------------------------------------------------------------

    def _check_current(self, shard: int, attempt: int) -> None:
        self._gate.check_open()
        if self._progress.shards[shard].attempt != attempt:
            raise AggregationError(f"Attempt {attempt} of shard {shard} was superseded.")

    def _take_epoch(self, shard: int, meta: dict[str, Any]) -> dict[str, Any]:
        """A shard is through with an epoch."""
        epoch = int(meta["epoch"])
        if self._meetings is None:
            self._progress.finish(shard, epoch, int(meta.get("sequence", 0)))
            self._gate.changed.notify_all()
            return self.instructions.to_json()
        generation = int(meta["generation"])
        free = self._meetings.hold(shard, epoch, generation, bool(meta.get("last")))
        return self._instructions(free, self._meetings.restart_since(generation)).to_json()

    def _take_failure(self, shard: int, meta: dict[str, Any]) -> dict[str, Any]:
        """A replica raised: the fit is over, and reports of further failures are refused."""
        self.failure = read(Failure, meta["failure"])
        self._gate.close(f"shard {shard} failed")
        return {}

    def _take_missing(self, shard: int, meta: dict[str, Any]) -> dict[str, Any]:
        """A replica did not find its shard's files; only the driver can have them written again."""
        self.missing.add(shard)
        return {}
