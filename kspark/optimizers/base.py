"""What every rule for merging has in common.

A replica brings a delta (new weights minus old ones); a `ServerOptimizer`
says what it does to the global weights. Papers write such rules for gradients
and subtract them. The gradient's place is taken by the *pseudo-gradient*
`g = -delta`, so `w <- w - eta g` reads `w += eta * delta` in this package.
That sign change lives here and nowhere else.

A rule sees the trainable part of the flat vector only, and changes it in
place. It holds no lock and starts no thread; whoever owns the weights does.

Rules whose replicas keep weights of their own (`keeps_replica_weights`) have
two halves, which move by the same amount in opposite directions:

* `apply(centre, gap, context)` runs where the global weights are. `gap` is the
  replica's weights minus the global weights *at that moment*, not a delta since
  the last pull. In a round it is the mean of all gaps.
* `replica_update(local, gap, start, slots, context)` runs where the replica is,
  with the same gap and the shard's share, and leaves in `local` where the
  replica goes on. It never takes over the global weights.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kspark.errors import AggregationError, invalid
from kspark.weights import weighted_mean

SYNCHRONOUS = "synchronous"
ASYNCHRONOUS = "asynchronous"
HOGWILD = "hogwild"
MODES = (SYNCHRONOUS, ASYNCHRONOUS, HOGWILD)


@dataclass(frozen=True)
class MergeContext:
    """What a rule may want to know about a delta.

    Example:

    ```python
    context = MergeContext("asynchronous", share=0.25, staleness=3, num_steps=8)
    ```

    Attributes:
        mode: `"synchronous"`, `"asynchronous"` or `"hogwild"`.
        share: Float in [0, 1]. Of a pushed delta: its shard's examples divided by
            all examples, so that the shares of all shards add up to one. Of a merged
            one the same for the shards that brought something, if replicas keep
            weights of their own; else `1.0`.
        staleness: Integer >= 0. Version of the weights now, minus the version the
            replica started from.
        num_steps: Integer >= 1. Local batches behind the delta.

    Raises:
        ValueError: If one of them is out of range.
    """

    mode: str
    share: float = 1.0
    staleness: int = 0
    num_steps: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise invalid("mode", "one of " + quoted(MODES), self.mode)
        if not 0 <= self.share <= 1:
            raise invalid("share", "a number from 0 to 1", self.share)
        if self.staleness < 0:
            raise invalid("staleness", "an integer >= 0", self.staleness)
        if self.num_steps < 1:
            raise invalid("num_steps", "an integer >= 1", self.num_steps)


class ServerOptimizer(ABC):
    """Base class of the rules: what a delta does to the global weights.

    Your own rule is a subclass with one method, `apply`. This one shortens
    deltas that are longer than a limit:

    >>> import numpy as np
    >>> from kspark.optimizers import MergeContext, ServerOptimizer
    >>> class Clipped(ServerOptimizer):
    ...     def __init__(self, limit=1.0):
    ...         super().__init__()
    ...         self.limit = limit
    ...
    ...     def apply(self, weights, delta, context):
    ...         length = float(np.linalg.norm(delta))
    ...         weights += context.share * delta / max(1.0, length / self.limit)
    >>> rule = Clipped(limit=1.0)
    >>> weights = np.zeros(2, "float32")
    >>> rule.apply(weights, np.array([3, 4], "float32"), MergeContext("synchronous"))
    >>> weights
    array([0.6, 0.8], dtype=float32)

    Hand it over as `SparkModel(..., server_optimizer=Clipped(limit=1.0))`. The
    arguments of the constructor are kept in attributes of the same names; that
    is where `get_config` finds them. To be known by name, also when a saved
    model is loaded, the class is given to `kspark.optimizers.register`.

    More is optional: `initial_slots` for vectors the rule keeps between deltas,
    `reduce` for another way to merge a round's deltas than their weighted mean,
    `modes` and `refusal` for where it makes no sense.

    A rule keeps state, so one object must not serve two models: `clone` makes a
    new one of the same configuration. `SparkModel` trains with clones of what it
    is given, and carries their state from `fit` to `fit`. To share state on
    purpose, hand it over with `get_state` and `set_state`.

    Attributes:
        modes: Frozen set of the modes the rule works in.
        refusal: String, why not in the others.
        needs_all_deltas: Boolean. `reduce` needs all deltas of a round side by
            side; they cannot be averaged on the way.
        keeps_replica_weights: Boolean. Replicas go on from their own weights, not
            from the global ones; see the module's text.
    """

    modes: ClassVar[frozenset[str]] = frozenset(MODES)
    refusal: ClassVar[str] = ""
    needs_all_deltas: ClassVar[bool] = False
    keeps_replica_weights: ClassVar[bool] = False

    def __init__(self) -> None:
        self._slots: dict[str, np.ndarray] = {}
        self._built: tuple[int, np.dtype] | None = None

    @property
    def name(self) -> str:
        """The class's name in snake case, as in `"elastic_average"`."""
        return name_of(type(self))

    @property
    def averages_deltas(self) -> bool:
        """Whether a round's deltas become their weighted mean, so that parts of it can be sums."""
        return not self.needs_all_deltas and type(self).reduce is ServerOptimizer.reduce

    @abstractmethod
    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Change the global weights by one delta, in place.

        Args:
            weights: Vector, the trainable part of the global weights.
            delta: Vector of the same size and dtype, new minus old; not modified.
            context: `MergeContext`.

        Raises:
            IncompatibleDeltaError: If shapes or dtypes differ; nothing changes.
        """

    def reduce(self, deltas: Sequence[np.ndarray], num_examples: Sequence[float]) -> np.ndarray:
        """Merge the deltas of one round into one: their mean, weighted by examples.

        Args:
            deltas: Sequence of vectors, in the order of the shards; not modified.
            num_examples: Sequence of numbers >= 0, one per delta. A delta of no
                examples weighs nothing.

        Returns:
            A new vector.

        Raises:
            AggregationError: If no delta has examples.
        """
        return weighted_mean(zip(deltas, num_examples, strict=True))

    # -- state ----------------------------------------------------------------------------

    def initial_slots(self) -> dict[str, float]:
        """Vectors the rule keeps between deltas: name, and the value they begin with."""
        return {}

    def build(self, size: int, dtype: npt.DTypeLike) -> None:
        """Allocate the slots. Built again for the same vector, the rule keeps its state.

        Args:
            size: Integer, elements of the trainable part.
            dtype: Floating dtype of the weights; slots have the same.

        Raises:
            ValueError: If the rule was built for another vector.
        """
        wanted = (int(size), np.dtype(dtype))
        if self._built is not None:
            if wanted != self._built:
                rule = "({}, {}), which this rule was built for; use its `clone()`"
                raise invalid("(size, dtype)", rule.format(*self._built), (size, str(wanted[1])))
            return
        for name, value in self.initial_slots().items():
            # np.zeros leaves it to the system to touch the pages, np.full writes them at once.
            self._slots[name] = np.full(size, value, dtype) if value else np.zeros(size, dtype)
        self._built = wanted

    def slot(self, name: str) -> np.ndarray:
        """One of the rule's vectors, itself and not a copy.

        Args:
            name: String, one of the names in `initial_slots`.

        Raises:
            AggregationError: If the rule is not built, or has no such slot.
        """
        if name not in self._slots:
            known = quoted(self._slots) or "none, call `build` first"
            raise AggregationError(f'Rule "{self.name}" has no slot "{name}". Slots: {known}.')
        return self._slots[name]

    def get_state(self) -> dict[str, np.ndarray]:
        """Copies of the rule's vectors, by name. Empty before `build`."""
        return {name: array.copy() for name, array in self._slots.items()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `get_state` gave. The rule must be built.

        Args:
            state: Mapping from slot name to array, as `get_state` returns it.

        Raises:
            ValueError: If names, shapes or dtypes differ; nothing changes.
        """
        wanted, given = described(self._slots), described(state)
        if wanted != given:
            raise invalid("state", f"the arrays {wanted}", given)
        for name, array in state.items():
            np.copyto(self._slots[name], array)

    # -- configuration --------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, read from the attributes of the same names."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ServerOptimizer:
        """A rule of this configuration, without state.

        Args:
            config: Mapping from argument name to value, as `get_config` returns it.
        """
        return cls(**config)

    def clone(self) -> ServerOptimizer:
        """A new rule of the same configuration, without this one's state."""
        return self.from_config(self.get_config())

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    # -- where it makes sense -------------------------------------------------------------

    def check_mode(self, mode: str) -> None:
        """Refuse a mode in which the rule makes no sense.

        Args:
            mode: `"synchronous"`, `"asynchronous"` or `"hogwild"`.

        Raises:
            ValueError: If it does not, with the reason.
        """
        if mode not in MODES:
            raise invalid("mode", "one of " + quoted(MODES), mode)
        if mode not in self.modes:
            works = " and ".join(f'"{m}"' for m in MODES if m in self.modes)
            reason = f": {self.refusal}" if self.refusal else ""
            rule = f'a rule for mode="{mode}"; this one is for {works} only{reason}'
            raise invalid("server_optimizer", rule, self)

    # -- the replica's half ---------------------------------------------------------------

    def replica_slots(self, size: int, dtype: npt.DTypeLike) -> dict[str, np.ndarray]:
        """New vectors that a replica keeps, with its weights, from exchange to exchange.

        Args:
            size: Integer, number of trainable elements.
            dtype: Floating dtype of the weights.
        """
        return {}

    def replica_update(
        self,
        local: np.ndarray,
        gap: np.ndarray,
        start: np.ndarray,
        slots: Mapping[str, np.ndarray],
        context: MergeContext,
    ) -> None:
        """Move a replica's own weights at an exchange; only if `keeps_replica_weights`.

        Args:
            local: Vector, trainable weights after local training; changed in place
                to the weights that training goes on from.
            gap: Vector, `local` minus the global weights before `apply`; not modified.
            start: Vector, where that local training began; not modified.
            slots: What `replica_slots` gave for this shard; changed in place.
            context: `MergeContext` with the shard's share, in a round too.

        Raises:
            IncompatibleDeltaError: If shapes or dtypes differ; nothing changes.
        """
        raise NotImplementedError(f'Replicas of rule "{self.name}" take over the global weights.')


def name_of(rule: type[ServerOptimizer]) -> str:
    """A rule's name: its class in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", rule.__name__).lower()


def quoted(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Names in quotes, with commas between them."""
    return ", ".join(f'"{name}"' for name in names)


def described(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Shape and dtype of each array, by name."""
    return {
        name: f"{np.shape(array)} {np.asarray(array).dtype}"
        for name, array in sorted(arrays.items())
    }
