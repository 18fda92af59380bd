"""Which training rows go to which shard when rows are mixed between shards.

The rows of all shards are dealt like cards: one to each shard in turn, so that the shards get equal
numbers of rows, and each gets its share of every shard. What is dealt follows from the seed of the
plan, the period and the places of the rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kspark.errors import invalid
from kspark.plan.checks import check_reshuffle

READ, WRITE = 2, 3
"""They distinguish the generators from each other, and from those of `TrainingPlan`."""


@dataclass(frozen=True)
class Mixing:
    """The mixing of the training rows for one period.

    Shards are numbered from 0. The rows of a mixed shard are written part by part, each in random
    order, so that a task has one part in memory.

    Attributes:
        seed: Integer, the seed of the plan.
        period: Integer, number of the period.
        num_train: Mapping from each shard to its training rows, also if it has none.
        parts: Integer, parts of each mixed shard.
    """

    seed: int
    period: int
    num_train: Mapping[int, int]
    parts: int = 1

    @property
    def places(self) -> int:
        """Number of parts of all mixed shards, among which rows are dealt."""
        return len(self.num_train) * self.parts

    def reading(self, shard: int) -> np.random.Generator:
        """Return the generator for the order in which the rows of a shard are dealt."""
        return np.random.default_rng([self.seed, self.period, shard, 0, READ])

    def writing(self, shard: int, part: int) -> np.random.Generator:
        """Return the generator for the order of the rows in a part of a mixed shard."""
        return np.random.default_rng([self.seed, self.period, shard, part, WRITE])

    def dealt(self, shard: int, start: int, count: int) -> Iterator[tuple[int, int, slice]]:
        """Say where the next rows of a shard go.

        Args:
            shard: Integer.
            start: Integer, number of rows of this shard that were dealt before.
            count: Integer, number of rows to deal.

        Yields:
            Tuples of a mixed shard, a part of it, and those of the `count` rows that it gets.
        """
        before = sum(n for other, n in self.num_train.items() if other < shard)
        shards = len(self.num_train)
        for place in range(self.places):
            first = (place - before - start) % self.places
            if first < count:
                part, target = divmod(place, shards)
                yield target, part, slice(first, count, self.places)


def mixed_sizes(num_train: Mapping[int, int]) -> dict[int, int]:
    """Return the number of rows of each shard after mixing. They differ by one row at most.

    Args:
        num_train: Mapping from each shard to its training rows before.
    """
    total, shards = sum(num_train.values()), len(num_train)
    return {shard: -((shard - total) // shards) for shard in range(shards)}


def check_mixing(
    reshuffle: Any, steps_per_epoch: int | None, straggler_timeout: float | None
) -> int | None:
    """Check the argument `reshuffle` of `fit`, and arguments that exclude it.

    Returns:
        Integer, number of epochs between two mixings, or `None` to mix nothing.

    Raises:
        ValueError: If the value is none of these, or rows cannot be mixed with the other arguments.
    """
    if reshuffle is None:
        return None
    epochs = check_reshuffle("reshuffle", reshuffle)
    if steps_per_epoch is not None:
        reason = "because a pass over the rows may then end within an epoch; leave one of them out"
        raise invalid("reshuffle", f"None with `steps_per_epoch`, {reason}", reshuffle)
    if straggler_timeout is not None:
        reason = "with which a late shard trains on while the others begin the next epoch"
        raise invalid("reshuffle", f"None with a `straggler_timeout`, {reason}", reshuffle)
    return 1 if epochs == "epoch" else int(epochs)
