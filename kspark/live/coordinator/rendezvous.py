"""Synchronous exchanges: everybody brings a vector, everybody leaves with the merged one.

Holds no lock and waits for nobody: `Coordinator` does both. What is here is
only what a meeting is, and what its last comer does.

A *generation* is one try at an epoch. When a replica is lost and comes back,
the epoch starts again for all, from the weights it began with, one generation
later; sequence numbers of an older generation are recognised by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from kspark.aggregator import Aggregator, Delta
from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.shards import num_batches
from kspark.weights import Packer, weighted_mean

GENERATION_BITS = 32
"""`sequence = generation << 32 | step`."""

Given = dict[int, tuple[np.ndarray | None, float]]


@dataclass
class Meeting:
    """One exchange that is under way.

    Attributes:
        sequence: Integer, generation and step.
        given: Mapping from shard to (vector or `None`, examples).
        merged: What everybody takes away, once all have come.
    """

    sequence: int
    given: Given = field(default_factory=dict)
    merged: np.ndarray | None = None

    @property
    def generation(self) -> int:
        """The try at the epoch that this meeting belongs to."""
        return self.sequence >> GENERATION_BITS

    @property
    def step(self) -> int:
        """Number of the exchange in its epoch."""
        return self.sequence & ((1 << GENERATION_BITS) - 1)


class Rendezvous:
    """The meetings of one fit, one after the other.

    Args:
        aggregator: `Aggregator` whose weights the meetings change.
        examples: Mapping from shard to its training examples.
        steps: Integer, exchanges an epoch (of the shard that has most).
        merge_gradients: Boolean. Meetings average gradients, and one more at the end of
            the epoch settles the weights; otherwise they merge deltas.
        replies: `Packer` of mean gradients. Everybody takes the same bytes away, so that all
            replicas stay alike.
        batch_size: Integer, examples per local batch, or `None` if nobody counts batches.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        examples: Mapping[int, int],
        steps: int,
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
        self.meeting = Meeting(0)

    @property
    def begun(self) -> bool:
        """Whether anybody has met or come in this epoch."""
        return bool(self.meeting.step or self.meeting.given)

    def take(self, meeting: Meeting, shard: int, vector: np.ndarray | None, n: float) -> bool:
        """Somebody comes. The last one merges, and opens the next meeting.

        Returns:
            Boolean, whether the meeting is complete.

        Raises:
            IncompatibleDeltaError: If the vector is not what this meeting is about.
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

    def absent(self, meeting: Meeting) -> list[int]:
        """Shards that have not come yet, sorted."""
        return sorted(set(self._examples) - set(meeting.given))

    def begin_epoch(self) -> None:
        """The epoch is settled; the next one starts from the weights as they are."""
        self._aggregator.pull(self._epoch_weights)
        self._epoch_slots = self._aggregator.optimizer.get_state()
        self._epoch_residual = residual_of(self._replies)
        self.meeting = Meeting(self.generation << GENERATION_BITS)

    def restart_epoch(self) -> None:
        """Back to where the epoch began, weights and optimizer alike, one generation later."""
        self.generation += 1
        self._aggregator.replace(self._epoch_weights)
        self._aggregator.optimizer.set_state(self._epoch_slots)
        self._replies.restore(self._epoch_residual)
        self.meeting = Meeting(self.generation << GENERATION_BITS)

    def _about_gradients(self, meeting: Meeting) -> bool:
        return self._merge_gradients and meeting.step < self._steps

    def _check(self, meeting: Meeting, shard: int, vector: np.ndarray) -> None:
        """The wire lets both sizes through: the whole vector's and its trainable part's."""
        spec = self._aggregator.spec
        size = spec.trainable_size if self._about_gradients(meeting) else spec.size
        if vector.shape != (size,) or vector.dtype != spec.dtype:
            raise IncompatibleDeltaError(
                f"Shard {shard} brought shape {vector.shape} and dtype {vector.dtype} to exchange "
                f"{meeting.step}, expected ({size},) and {spec.dtype}."
            )

    def _merge(self, meeting: Meeting) -> np.ndarray:
        if self._about_gradients(meeting):
            return self._replies.pack(mean_of(meeting.given))
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
        """Merge the gaps of replicas that keep weights of their own.

        A shard counts by its part of all examples, as it does where the replica moves: who
        has no batches left, or a short one, makes no other's spring tighter.
        """
        weighed = [replace(gap, num_examples=self._examples[gap.shard]) for gap in gaps]
        share = sum(gap.num_examples for gap in weighed) / sum(self._examples.values())
        self._aggregator.merge(weighed, steps, share)

    def _settle(self, given: Given) -> np.ndarray:
        """The epoch's weights: trainable ones are alike on all replicas, state is averaged."""
        first = given[min(given)][0]
        if first is None:
            raise AggregationError("The first replica brought no weights.")
        merged = first.copy()
        cut = self._aggregator.spec.trainable_size
        if cut < merged.size:
            brought = ((s, v) for s, (v, _) in sorted(given.items()) if v is not None)
            # In float64: the mean of what is frozen, alike on all replicas, is that to the bit.
            merged[cut:] = weighted_mean((v[cut:], self._examples[s]) for s, v in brought)
        self._aggregator.replace(merged)
        return self._aggregator.weights


def residual_of(packer: Packer) -> np.ndarray | None:
    """A copy of what packing has left over, if it loses anything."""
    return None if packer.residual is None else packer.residual.copy()


def mean_of(given: Mapping[int, tuple[np.ndarray | None, float]]) -> np.ndarray:
    """Example-weighted mean in the order of the shards, in the vectors' own dtype.

    Raises:
        AggregationError: If nobody brought examples.
    """
    pairs = [(v, n) for _, (v, n) in sorted(given.items()) if v is not None and n > 0]
    total = sum(n for _, n in pairs)
    if not total:
        raise AggregationError("There is nothing to average: no replica has examples left.")
    first, count = pairs[0]
    merged = first * first.dtype.type(count / total)
    for vector, n in pairs[1:]:
        merged += vector * vector.dtype.type(n / total)
    return merged


def steps_of(num_examples: int, batch_size: int | None) -> int:
    """Local batches behind a delta of so many examples, at least one; 1 if nobody counts them."""
    return 1 if batch_size is None else max(1, num_batches(num_examples, batch_size))
