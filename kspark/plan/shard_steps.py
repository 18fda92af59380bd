"""How many batches of its rows a shard trains in an epoch, and which.

Without `steps_per_epoch`, an epoch is one pass over the rows. With it, the batches of all passes
form one sequence: an epoch takes the next `steps_per_epoch` of them, divided among the shards, and
the epoch after it goes on where this one stopped, as in `keras.Model.fit`.

Rows that come from a function of the user are read anew in each epoch, see `StreamSteps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kspark.errors import invalid
from kspark.plan.apportioning import apportioned
from kspark.plan.training_plan import TrainingPlan
from kspark.shards import num_batches

UNKNOWN = 1 << 62
"""Stands for the number of batches of an epoch as long as nobody knows it."""


@dataclass(frozen=True)
class ShardSteps:
    """The batches of one shard in each epoch.

    Attributes:
        rows: Integer, training rows of the shard.
        batch_size: Integer, examples per batch. The last batch of a pass may have fewer.
        batches: Integer, batches per epoch.
    """

    rows: int
    batch_size: int
    batches: int

    def ranges(self, epoch: int) -> Iterator[tuple[int, int, int]]:
        """Yield the batches of an epoch.

        Args:
            epoch: Integer, counted from `TrainingPlan.origin`.

        Yields:
            Tuples `(number, start, stop)`: batches `[start, stop)` of a pass over the rows.
        """
        per_pass = num_batches(self.rows, self.batch_size)
        position, end = epoch * self.batches, (epoch + 1) * self.batches
        while position < end:
            number, start = divmod(position, per_pass)
            stop = min(per_pass, start + end - position)
            yield number, start, stop
            position += stop - start

    def num_examples(self, epoch: int) -> int:
        """Return the number of examples that the shard trains in an epoch; see `ranges`."""
        size = self.batch_size
        return sum(
            min(stop * size, self.rows) - start * size for _, start, stop in self.ranges(epoch)
        )


@dataclass(frozen=True)
class StreamSteps:
    """The batches of one shard in each epoch, whose rows come from a function of the user.

    Attributes:
        batch_size: Integer, examples per batch. The last batch of the data may have fewer.
        batches: Integer, batches per epoch; `UNKNOWN` to read the data to its end.
    """

    batch_size: int
    batches: int

    @property
    def rows(self) -> int:
        """The weight of the shard: the examples of full batches, or 1 if it is not known."""
        return 1 if self.batches == UNKNOWN else self.batches * self.batch_size

    def num_examples(self, epoch: int) -> int:
        """Return the number of examples that the shard trains at most; 0 if it is not known."""
        return 0 if self.batches == UNKNOWN else self.batches * self.batch_size


Steps = ShardSteps | StreamSteps


def shard_steps(plan: TrainingPlan, num_train: Mapping[int, int]) -> dict[int, Steps]:
    """Return the steps of each shard that has rows to train on.

    Args:
        plan: `TrainingPlan`.
        num_train: Mapping from shard to its number of training rows.

    Raises:
        ValueError: If there are fewer steps than shards.
    """
    rows = {shard: n for shard, n in num_train.items() if n}
    if plan.streams:
        count, equal = plan.steps_per_epoch, dict.fromkeys(rows, 1)
        limits = dict.fromkeys(rows, UNKNOWN) if count is None else divided(count, equal)
        return {shard: StreamSteps(plan.batch_size, limits[shard]) for shard in rows}
    if plan.steps_per_epoch is None:
        batches = {shard: plan.batches(n) for shard, n in rows.items()}
    else:
        batches = divided(plan.steps_per_epoch, rows)
    return {shard: ShardSteps(n, plan.batch_size, batches[shard]) for shard, n in rows.items()}


def known(batches: int) -> int:
    """Return a number of batches, or 0 if it is `UNKNOWN`."""
    return 0 if batches == UNKNOWN else batches


def divided(steps: int, rows: Mapping[int, int]) -> dict[int, int]:
    """Divide the steps of an epoch among shards: one each, and the others by their rows.

    Raises:
        ValueError: If there are fewer steps than shards.
    """
    if steps < len(rows):
        rule = (
            f">= {len(rows)}, the number of shards with rows, because each trains at least one "
            "batch (or set a smaller `num_workers`)"
        )
        raise invalid("steps_per_epoch", rule, steps)
    others = apportioned(steps - len(rows), rows)
    return {shard: 1 + part for shard, part in others.items()}
