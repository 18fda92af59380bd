"""Groups of shards, whose deltas are averaged on executors before they reach the driver.

A second stage of the Spark job has one task per group. Its function takes and returns plain data,
and needs no Keras.
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
from kspark.worker.tasks import MissingShard, Result, ShardResult, State, widened


@dataclass(frozen=True)
class Grouping:
    """The groups of shards that are merged together.

    Attributes:
        groups: Tuple of mappings from shard to its training examples, one per group. Groups are
            consecutive shards, and have about the same number of shards.
    """

    groups: tuple[Mapping[int, int], ...]

    @classmethod
    def of(cls, num_train: Mapping[int, int]) -> Grouping:
        """Create `⌈√k⌉` groups for `k` shards with examples, of about `√k` shards each."""
        shards = sorted(shard for shard, count in num_train.items() if count)
        groups = math.ceil(math.sqrt(len(shards)))
        cuts = [len(shards) * i // groups for i in range(groups + 1)]
        parts = (shards[a:b] for a, b in zip(cuts, cuts[1:], strict=False))
        return cls(tuple({shard: num_train[shard] for shard in part} for part in parts))

    @cached_property
    def number(self) -> Mapping[int, int]:
        """Mapping from shard to the number of its group."""
        return {shard: i for i, group in enumerate(self.groups) for shard in group}


@dataclass(frozen=True)
class GroupResult:
    """The merged results of one group of shards.

    Attributes:
        number: Integer, the group.
        parts: Tuple of the shards' results without vectors, in the order of the shards.
        delta: Vector, the mean of the deltas weighted by examples, not compressed; or its payload
            of changed blocks. Defaults to `None`, no delta.
        delta_examples: Integer, number of examples of `delta`. Defaults to `0`.
        state: `State`, the mean of the states (see `StateMean`). Defaults to `None`, no state.
        state_examples: Integer, number of examples of `state`. Defaults to `0`.
    """

    number: int
    parts: tuple[Result, ...]
    delta: np.ndarray | None = None
    delta_examples: int = 0
    state: State | None = None
    state_examples: int = 0


class StateMean:
    """The mean of replicas' states (see `State`).

    Floating point arrays of the optimizer state are averaged by examples. All other arrays, such
    as counters, are those of the first replica.
    """

    def __init__(self) -> None:
        self._means: dict[int, WeightedMean] = {}
        self._first: State | None = None
        self.total = 0

    def add(self, state: State, num_examples: int) -> None:
        """Add the state of one replica, or the mean of several."""
        optimizer, fixed = [widened(array) for array in state[0]], state[1]
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
        """Return the mean, or `None` if no state was added."""
        if self._first is None:
            return None
        optimizer, fixed = self._first
        means = self._means
        return [means[i].result() if i in means else a for i, a in enumerate(optimizer)], fixed


class GroupMean:
    """The means of the deltas and states of a group, summed in the order of its shards.

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
        self._examples: dict[int, int] = {}

    def result(self, number: int, results: Iterable[Result]) -> GroupResult:
        """Merge all results of the group's shards."""
        parts: list[Result] = []
        deltas = InOrder(self._shards, self.add_delta)
        states = InOrder(self._shards, self.add_state)
        with deltas, states:
            for result in results:
                if isinstance(result, ShardResult):
                    if result.delta is not None:
                        self._examples[result.shard] = result.num_examples
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
        """Add a delta or its payload."""
        (delta,) = arrays
        if delta.dtype == PACKED:
            delta = self._packing.unpack(delta, self._out)
        self._delta.add(delta, self._examples[shard])

    def mean_delta(self) -> np.ndarray:
        """Return the mean for the driver, not compressed: nothing would keep the codec's error."""
        mean = self._delta.result()
        return self._packing.packer().pack(mean) if self._packing.lossless else mean

    def add_state(self, shard: int, arrays: list[np.ndarray]) -> None:
        """Add the arrays of a state."""
        self._state.add((arrays[: self._split], arrays[self._split :]), self._shards[shard])


def of_groups(
    grouping: Grouping, wanted: Set[int], index: int, handles: Iterable[bytes]
) -> Iterator[bytes]:
    """Yield the shard handles of a partition whose shard is in one of the `wanted` groups."""
    found = list(handles)  # Read to the end. Otherwise Spark ends this process.
    if grouping.number.get(index) in wanted:
        yield from found


def by_group(
    grouping: Grouping, index: int, results: Iterable[Result]
) -> Iterator[tuple[int, Result]]:
    """Yield pairs of a group and a shard's result. Shards without training rows are omitted."""
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
    """Merge the results of one group's shards. The partition is the group."""
    mean = GroupMean(grouping.groups[index], packing)
    yield mean.result(index, (result for _, result in pairs))
