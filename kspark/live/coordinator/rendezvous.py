"""Synchronous exchanges: every replica brings a vector, and every replica gets the merged one.

This module defines meetings and their merges. It contains no lock and no wait: `Coordinator` and
`meetings` have those.

A *generation* is one try at an epoch. If a replica is lost and comes back, the epoch starts again
for all replicas, from its first weights and with the next generation. Sequence numbers contain the
generation, so that those of an earlier try are recognized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from kspark.aggregator import Aggregator, Delta
from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.live.wire.documents import GENERATION_BITS
from kspark.shards import num_batches
from kspark.weights import Packer, mean_in_order, weighted_mean

Given = dict[int, tuple[np.ndarray | None, float]]

OVER = np.empty(0)
"""The result of a meeting to which no replica brings a vector, because none has batches left."""


@dataclass
class Meeting:
    """One exchange in progress.

    Attributes:
        sequence: Integer, generation and step.
        given: Mapping from shard to a tuple of its vector or `None`, and its number of examples.
        merged: Merged vector, or `None` until all replicas have arrived.
    """

    sequence: int
    given: Given = field(default_factory=dict)
    merged: np.ndarray | None = None

    @property
    def generation(self) -> int:
        """Number of the try at the epoch that this meeting belongs to."""
        return self.sequence >> GENERATION_BITS

    @property
    def step(self) -> int:
        """Number of the exchange in its epoch."""
        return self.sequence & ((1 << GENERATION_BITS) - 1)


class Rendezvous:
    """The meetings of one fit, one after the other.

    Args:
        aggregator: `Aggregator` with the global weights.
        examples: Mapping from shard to its training examples.
        steps: Integer, exchanges per epoch of the shard with most exchanges; `None` if nobody
            knows it. Then replicas without batches bring nothing, and the exchanges of an epoch
            are over when all replicas bring nothing.
        merge_gradients: Boolean, whether meetings average gradients, and one more at the end of
            the epoch merges the weights. Otherwise they merge deltas.
        replies: `Packer` of mean gradients. All replicas get the same bytes, so that they stay
            equal.
        batch_size: Integer, examples per local batch. Defaults to `None`: every delta counts as
            one batch.

    Attributes:
        generation: Integer, number of the try at the epoch.
        apart: Boolean, whether replicas average their gradients among themselves.
        entered: Boolean, whether a replica has begun the epoch.
        over: Boolean, whether no replica has batches left in the epoch, if `steps` is `None`.
        meeting: `Meeting` that is open.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        examples: Mapping[int, int],
        steps: int | None,
        merge_gradients: bool,
        replies: Packer,
        batch_size: int | None = None,
    ) -> None:
        self._replies = replies
        self._epoch_residual = residual_of(replies)
        self._aggregator = aggregator
        self._examples = examples
        self._steps = steps
        self._merge_gradients = merge_gradients
        self._batch_size = batch_size
        self._epoch_weights = aggregator.weights.copy()
        self._epoch_slots = aggregator.optimizer.get_state()
        self.generation = 0
        self.apart = False
        self.entered = False
        self.over = False
        self.meeting = Meeting(0)

    @property
    def begun(self) -> bool:
        """Whether a replica may have brought a vector in this epoch."""
        return self.entered if self.apart else bool(self.meeting.step or self.meeting.given)

    def meet_apart(self) -> None:
        """Leave the means of gradients to the replicas, until an epoch starts again.

        Then only the last meeting of each epoch, which merges the weights, takes place here.
        """
        self.apart = True
        self._open_epoch()

    @property
    def residual(self) -> np.ndarray | None:
        """What packing mean gradients has left over; `None` if nothing is ever left over."""
        return residual_of(self._replies)

    @residual.setter
    def residual(self, residual: np.ndarray | None) -> None:
        if residual is not None:
            self._replies.restore(residual)
            self._epoch_residual = residual_of(self._replies)

    def take(self, meeting: Meeting, shard: int, vector: np.ndarray | None, n: float) -> bool:
        """Add a replica's vector. With the last one, merge them and open the next meeting.

        Returns:
            Boolean, whether the meeting is complete.

        Raises:
            IncompatibleDeltaError: If the vector has a wrong size or dtype for this meeting.
            AggregationError: If the vectors cannot be merged.
        """
        if vector is not None:
            self._check(meeting, shard, vector)
        meeting.given[shard] = (vector, n)
        if len(meeting.given) < len(self._examples):
            return False
        meeting.merged = self._merge(meeting)
        self.meeting = Meeting(meeting.sequence + 1)
        return True

    def begin_epoch(self) -> None:
        """Begin the next epoch from the current weights."""
        self._aggregator.pull(self._epoch_weights)
        self._epoch_slots = self._aggregator.optimizer.get_state()
        self._epoch_residual = residual_of(self._replies)
        self._open_epoch()

    def restart_epoch(self) -> None:
        """Restore the weights and states at the beginning of the epoch, for the next generation."""
        self.generation += 1
        self.apart = False
        self._aggregator.replace(self._epoch_weights)
        self._aggregator.optimizer.set_state(self._epoch_slots)
        self._replies.restore(self._epoch_residual)
        self._open_epoch()

    def _open_epoch(self) -> None:
        self.entered = self.over = False
        step = self._steps or 0 if self.apart else 0
        self.meeting = Meeting(self.generation << GENERATION_BITS | step)

    def _about_gradients(self, meeting: Meeting) -> bool:
        if self._steps is None:
            return self._merge_gradients and not self.over and not self.apart
        return self._merge_gradients and meeting.step < self._steps

    def _check(self, meeting: Meeting, shard: int, vector: np.ndarray) -> None:
        """Check the size. The wire accepts those of the whole vector and of its trainable part."""
        spec = self._aggregator.spec
        size = spec.trainable_size if self._about_gradients(meeting) else spec.size
        if vector.shape != (size,) or vector.dtype != spec.dtype:
            raise IncompatibleDeltaError(
                f"Shard {shard} sent shape {vector.shape} and dtype {vector.dtype} in exchange "
                f"{meeting.step}, expected ({size},) and {spec.dtype}."
            )

    def _merge(self, meeting: Meeting) -> np.ndarray:
        if self._steps is None and all(vector is None for vector, _ in meeting.given.values()):
            self.over = True
            return OVER
        if self._about_gradients(meeting):
            given = ((v, n) for _, (v, n) in sorted(meeting.given.items()) if v is not None)
            return self._replies.pack(mean_in_order(given))
        if self._merge_gradients:
            return self._settle(meeting.given)
        deltas = [Delta(s, v, n) for s, (v, n) in meeting.given.items() if v is not None]
        steps = max((steps_of(int(d.num_examples), self._batch_size) for d in deltas), default=1)
        if self._aggregator.keeps_replica_weights:
            self._merge_gaps(deltas, steps)
        else:
            self._aggregator.merge(deltas, steps)
        return self._aggregator.weights

    def _merge_gaps(self, gaps: list[Delta], steps: int) -> None:
        """Merge the gaps of replicas that keep their own weights.

        Each shard is weighted by its fraction of all examples, as in the replica's own update. So
        a shard without batches, or with a short batch, does not change the weight of the others.
        """
        weighed = [replace(gap, num_examples=self._examples[gap.shard]) for gap in gaps]
        share = sum(gap.num_examples for gap in weighed) / sum(self._examples.values())
        self._aggregator.merge(weighed, steps, share)

    def _settle(self, given: Given) -> np.ndarray:
        """Merge weights at the end of an epoch.

        Trainable weights are equal on all replicas. Non-trainable ones are averaged.
        """
        first = given[min(given)][0]
        if first is None:
            raise AggregationError("The first replica sent no weights.")
        merged = first.copy()
        cut = self._aggregator.spec.trainable_size
        if cut < merged.size:
            brought = (
                (v, n if self._steps is None else self._examples[s])
                for s, (v, n) in sorted(given.items())
                if v is not None
            )
            # In float64, so that the mean of equal weights, such as frozen ones, is exactly these.
            merged[cut:] = weighted_mean((v[cut:], n) for v, n in brought)
        self._aggregator.replace(merged)
        return self._aggregator.weights


def residual_of(packer: Packer) -> np.ndarray | None:
    """Return a copy of a packer's residual, or `None` if it has none."""
    return None if packer.residual is None else packer.residual.copy()


def steps_of(num_examples: int, batch_size: int | None) -> int:
    """Return the number of local batches of a delta, at least 1; 1 without a batch size."""
    return 1 if batch_size is None else max(1, num_batches(num_examples, batch_size))
