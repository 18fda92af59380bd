"""Groups of shards whose deltas are summed on an executor, before the driver sees them.

Between the training of the shards and the driver there is a stage of Spark more, with
one task per group. What its function gets and gives are plain data, and it needs no Keras.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kspark.errors import Failure
from kspark.weights import PACKED, PackingScheme, WeightedMean
from kspark.worker.in_order import InOrder
from kspark.worker.tasks import MissingShard, Result, ShardResult, State


@dataclass(frozen=True)
class Grouping:
    """Which shards are summed together.

    Attributes:
        groups: Tuple of mappings from shard to its training examples, one per group. They
            are the shards in their order, cut into parts of about the same length.
    """

    groups: tuple[Mapping[int, int], ...]

    @classmethod
    def of(cls, num_train: Mapping[int, int]) -> Grouping:
        """About as many groups as each has shards: `⌈√k⌉` of them for `k` shards with examples."""
        shards = sorted(shard for shard, count in num_train.items() if count)
        groups = math.ceil(math.sqrt(len(shards)))
        cuts = [len(shards) * i // groups for i in range(groups + 1)]
        parts = (shards[a:b] for a, b in zip(cuts, cuts[1:], strict=False))
        return cls(tuple({shard: num_train[shard] for shard in part} for part in parts))

    @cached_property
    def number(self) -> Mapping[int, int]:
        """The group of each shard."""
        return {shard: i for i, group in enumerate(self.groups) for shard in group}


@dataclass(frozen=True)
class GroupResult:
    """What one group of shards brought.

    Attributes:
        number: Integer, the group.
        parts: Tuple of what its shards brought, in their order, without vectors.
        delta: Vector, the mean of their deltas, weighted by examples, and not compressed; or
            a payload of what changed in it. `None` if there was none.
        delta_examples: Integer, examples behind `delta`.
        state: The mean of their states, see `StateMean`; `None` if there was none.
        state_examples: Integer, examples behind `state`.
    """

    number: int
    parts: tuple[Result, ...]
    delta: np.ndarray | None = None
    delta_examples: int = 0
    state: State | None = None
    state_examples: int = 0


class StateMean:
    """The mean of what replicas keep beside their merged weights.

    Floating point state is averaged by examples; counters and other fixed state are the
    first one's.
    """

    def __init__(self) -> None:
        self._means: dict[int, WeightedMean] = {}
        self._first: State | None = None
        self.total = 0

    def add(self, state: State, num_examples: int) -> None:
        """Take in one replica's state, or the mean of several."""
        optimizer, fixed = state
        if self._first is None:
            floating = [np.issubdtype(array.dtype, np.floating) for array in optimizer]
            self._means = {i: WeightedMean() for i, yes in enumerate(floating) if yes}
            self._first = list(optimizer), list(fixed)
            for i in self._means:
                self._first[0][i] = np.empty(0)
        for i, mean in self._means.items():
            mean.add(optimizer[i], num_examples)
        self.total += num_examples

    def result(self) -> State | None:
        """The mean, or `None` if nothing was added."""
        if self._first is None:
            return None
        optimizer, fixed = self._first
        means = self._means
        return [means[i].result() if i in means else a for i, a in enumerate(optimizer)], fixed


class GroupMean:
    """The means of what the shards of a group bring, in their order.

    Args:
        shards: Mapping from shard to its training examples.
        packing: `PackingScheme` of the deltas.
    """

    def __init__(self, shards: Mapping[int, int], packing: PackingScheme) -> None:
        self._shards = shards
        self._packing = packing
        self._out = np.empty(packing.spec.size, packing.spec.dtype)
        self._delta, self._state = WeightedMean(), StateMean()
        self._split = 0

    def result(self, number: int, results: Iterable[Result]) -> GroupResult:
        """Read what the shards bring to its end."""
        parts: list[Result] = []
        deltas = InOrder(self._shards, self.add_delta)
        states = InOrder(self._shards, self.add_state)
        with deltas, states:
            for result in results:
                if isinstance(result, ShardResult):
                    if result.delta is not None:
                        deltas.add(result.shard, [result.delta])
                    if result.state is not None:
                        self._split = len(result.state[0])
                        states.add(result.shard, [*result.state[0], *result.state[1]])
                    result = replace(result, delta=None, state=None)
                parts.append(result)
        return GroupResult(
            number,
            tuple(sorted(parts, key=lambda part: part.shard)),
            self.mean_delta() if self._delta.count else None,
            int(self._delta.total),
            self._state.result(),
            self._state.total,
        )

    def add_delta(self, shard: int, arrays: list[np.ndarray]) -> None:
        """Add a delta, or the payload that it travels as."""
        (delta,) = arrays
        if delta.dtype == PACKED:
            delta = self._packing.unpack(delta, self._out)
        self._delta.add(delta, self._shards[shard])

    def mean_delta(self) -> np.ndarray:
        """The mean as it travels to the driver. It is not compressed: nobody keeps what is lost."""
        mean = self._delta.result()
        return self._packing.packer().pack(mean) if self._packing.lossless else mean

    def add_state(self, shard: int, arrays: list[np.ndarray]) -> None:
        """Add a state."""
        self._state.add((arrays[: self._split], arrays[self._split :]), self._shards[shard])


def of_groups(
    grouping: Grouping, wanted: Set[int], index: int, handles: Iterable[bytes]
) -> Iterator[bytes]:
    """The shard handles of a partition, if its shard is in a group that is wanted."""
    found = list(handles)  # to the end, else Spark ends this process
    if grouping.number.get(index) in wanted:
        yield from found


def by_group(
    grouping: Grouping, index: int, results: Iterable[Result]
) -> Iterator[tuple[int, Result]]:
    """Pairs of (group, what a shard brought); shards that have nothing to train bring nothing."""
    for result in results:
        group = grouping.number.get(result.shard)
        if isinstance(result, Failure | MissingShard):
            yield group or 0, result
        elif group is not None:
            yield group, result


def merge_group(
    grouping: Grouping,
    packing: PackingScheme,
    index: int,
    pairs: Iterable[tuple[int, Result]],
) -> Iterator[GroupResult]:
    """Merge what the shards of one group brought; the group is the partition."""
    mean = GroupMean(grouping.groups[index], packing)
    yield mean.result(index, (result for _, result in pairs))
