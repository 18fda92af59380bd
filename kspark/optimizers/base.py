"""The base class of server optimizers.

A replica sends a delta, its new weights minus its old ones. A `ServerOptimizer` applies it to the
global weights. Papers define such rules for gradients, which they subtract. This package uses the
*pseudo-gradient* `g = -delta` instead, so `w <- w - eta g` becomes `w += eta * delta`. The sign
changes here and nowhere else.

A rule gets only the trainable part of the flat vector, and changes it in place. It has no lock and
no thread. The owner of the weights has them.

Rules whose replicas keep their own weights (`keeps_replica_weights`) have two halves, which move
weights by the same amount in opposite directions:

* `apply(centre, gap, context)` runs on the driver. `gap` is the replica's weights minus the
  current global weights, not a delta since the last pull. In a round, it is the mean of all gaps.
* `replica_update(local, gap, start, slots, context)` runs on the replica, with the same gap and the
  shard's share. It changes `local` to the weights from which the replica continues. A replica
  never takes over the global weights.
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
from kspark.weights import Weight, weighted_mean

SYNCHRONOUS = "synchronous"
ASYNCHRONOUS = "asynchronous"
HOGWILD = "hogwild"
MODES = (SYNCHRONOUS, ASYNCHRONOUS, HOGWILD)


@dataclass(frozen=True)
class MergeContext:
    """Facts about a delta that a rule may use.

    Example:

    ```python
    context = MergeContext("asynchronous", share=0.25, staleness=3, num_steps=8)
    ```

    Attributes:
        mode: String, `"synchronous"`, `"asynchronous"` or `"hogwild"`.
        share: Float in [0, 1]. For a pushed delta, its shard's examples divided by all examples,
            so that the shares of all shards add up to one. For a merged delta, `1.0`, or the sum
            of the shares of the merged shards if replicas keep their own weights. Defaults to
            `1.0`.
        staleness: Integer >= 0, current version of the weights minus the version from which the
            replica started. Defaults to `0`.
        num_steps: Integer >= 1, number of local batches of the delta. Defaults to `1`.

    Raises:
        ValueError: If an attribute is out of range.
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
    """Base class of the rules that apply deltas to the global weights.

    A custom rule is a subclass with one method, `apply`. This rule shortens deltas that are longer
    than a limit:

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

    Pass it as `SparkModel(..., server_optimizer=Clipped(limit=1.0))`. Store the constructor's
    arguments in attributes of the same names, from which `get_config` reads them. To refer to the
    class by its name, or to load saved models with it, register it with
    `kspark.optimizers.register`.

    Other members are optional: `initial_slots` for vectors that the rule keeps between deltas,
    `reduce` to merge the deltas of a round in another way than by their weighted mean, and `modes`
    and `refusal` to exclude modes.

    A rule has state, so do not use one object for two models: `clone` creates a new one with the
    same configuration. `SparkModel` trains with a clone of its argument, and keeps the clone's
    state from `fit` to `fit`. To share state on purpose, use `get_state` and `set_state`.

    Attributes:
        modes: Frozen set of strings, the modes in which the rule works.
        refusal: String, the reason why the rule does not work in other modes.
        needs_all_deltas: Boolean, whether `reduce` needs all deltas of a round at once, so that
            they cannot be averaged earlier.
        keeps_replica_weights: Boolean, whether replicas continue from their own weights and not
            from the global ones. See the module's docstring.
    """

    modes: ClassVar[frozenset[str]] = frozenset(MODES)
    refusal: ClassVar[str] = ""
    needs_all_deltas: ClassVar[bool] = False
    keeps_replica_weights: ClassVar[bool] = False

    def __init__(self) -> None:
        self._slots: dict[str, np.ndarray] = {}
        self._built: tuple[int, np.dtype] | None = None
        self._layout: tuple[Weight, ...] = ()

    @property
    def name(self) -> str:
        """Name of the class in snake case, such as `"elastic_average"`."""
        return name_of(type(self))

    @property
    def averages_deltas(self) -> bool:
        """Whether a round's deltas are merged by their weighted mean, also in groups."""
        return not self.needs_all_deltas and type(self).reduce is ServerOptimizer.reduce

    @abstractmethod
    def apply(self, weights: np.ndarray, delta: np.ndarray, context: MergeContext) -> None:
        """Apply one delta to the global weights, in place.

        Args:
            weights: Vector, the trainable part of the global weights.
            delta: Vector of the same size and dtype, new minus old weights. It is not modified.
            context: `MergeContext`.

        Raises:
            IncompatibleDeltaError: If shapes or dtypes differ. Nothing changes then.
        """

    def reduce(self, deltas: Sequence[np.ndarray], num_examples: Sequence[float]) -> np.ndarray:
        """Merge the deltas of one round into their mean, weighted by examples.

        Args:
            deltas: Sequence of vectors, in the order of the shards. They are not modified.
            num_examples: Sequence of numbers >= 0, one per delta. A delta without examples has
                no weight.

        Returns:
            A new vector.

        Raises:
            AggregationError: If no delta has examples.
        """
        return weighted_mean(zip(deltas, num_examples, strict=True))

    # -- state ----------------------------------------------------------------------------

    def initial_slots(self) -> dict[str, float]:
        """Return the rule's vectors between deltas: names and initial values."""
        return {}

    def lay_out(self, variables: Sequence[Weight]) -> None:
        """Keep the names and shapes of the trainable variables. Call it before `build`.

        Most rules treat all coordinates alike, and do not use them.

        Args:
            variables: Sequence of `kspark.weights.Weight`, in the order of the vector.
        """
        self._layout = tuple(variables)

    def build(self, size: int, dtype: npt.DTypeLike) -> None:
        """Allocate the slots. A second call with the same arguments keeps the state.

        Args:
            size: Integer, elements of the trainable part.
            dtype: Floating dtype of the weights and of the slots.

        Raises:
            ValueError: If the rule was built with other arguments.
        """
        wanted = (int(size), np.dtype(dtype))
        if self._built is not None:
            if wanted != self._built:
                rule = "({}, {}), which this rule was built for; use its `clone()`"
                raise invalid("(size, dtype)", rule.format(*self._built), (size, str(wanted[1])))
            return
        for name, value in self.initial_slots().items():
            # `np.zeros` does not touch the memory before its first use, but `np.full` does.
            self._slots[name] = np.full(size, value, dtype) if value else np.zeros(size, dtype)
        self._built = wanted

    def slot(self, name: str) -> np.ndarray:
        """Return one of the rule's vectors, not a copy.

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
        """Return copies of the rule's vectors by name. Empty before `build`."""
        return {name: array.copy() for name, array in self._slots.items()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Set the state that `get_state` returned. The rule must be built.

        Args:
            state: Mapping from slot name to array, as `get_state` returns it.

        Raises:
            ValueError: If names, shapes or dtypes differ. Nothing changes then.
        """
        wanted, given = described(self._slots), described(state)
        if wanted != given:
            raise invalid("state", f"the arrays {wanted}", given)
        for name, array in state.items():
            np.copyto(self._slots[name], array)

    # -- configuration --------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, read from attributes of the same names."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ServerOptimizer:
        """Create a rule from a configuration, without state.

        Args:
            config: Mapping from argument name to value, as `get_config` returns it.
        """
        return cls(**config)

    def clone(self) -> ServerOptimizer:
        """Return a new rule with the same configuration, without state."""
        return self.from_config(self.get_config())

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    # -- modes -------------------------------------------------------------

    def check_mode(self, mode: str) -> None:
        """Check that the rule works in a mode.

        Args:
            mode: String, `"synchronous"`, `"asynchronous"` or `"hogwild"`.

        Raises:
            ValueError: If it does not work in the mode. The message has the reason.
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
        """Return new vectors that a replica keeps between exchanges, together with its weights.

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
        """Update a replica's own weights at an exchange, for rules with `keeps_replica_weights`.

        Args:
            local: Vector, trainable weights after local training. Changed in place to the weights
                from which training continues.
            gap: Vector, `local` minus the global weights before `apply`. It is not modified.
            start: Vector, weights at the start of the local training. It is not modified.
            slots: Mapping of vectors from `replica_slots` for this shard, changed in place.
            context: `MergeContext` with the shard's share, also in a round.

        Raises:
            IncompatibleDeltaError: If shapes or dtypes differ. Nothing changes then.
        """
        raise NotImplementedError(f'Replicas of rule "{self.name}" take over the global weights.')


def name_of(rule: type[ServerOptimizer]) -> str:
    """Return the name of a rule, its class name in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", rule.__name__).lower()


def quoted(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return names in quotes, separated by commas."""
    return ", ".join(f'"{name}"' for name in names)


def described(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return the shape and dtype of each array by name."""
    return {
        name: f"{np.shape(array)} {np.asarray(array).dtype}"
        for name, array in sorted(arrays.items())
    }
