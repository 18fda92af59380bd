"""The global weights of a fit, and the server optimizer that changes them.

There is one `Aggregator` per `fit`, on the driver. It opens no socket: deltas come
in the results of Spark jobs (rounds), or through `live.coordinator` and
`live.transport` (live training). All modes change the global weights only here:

* `merge` applies the weighted mean of the deltas of several replicas;
* `push` applies the delta of one replica;
* `exchange` does so for a replica that keeps its own weights;
* `replace` copies weights that were computed elsewhere (exact synchronous steps).

If the model has constraints (see `keep_constraints`), they are applied after each change by a
delta, and only here. Weights that `replace` copies fulfil them, or were set by the user.

Invariant: `version` is the number of changes that produced `weights`. Without a
lock (hogwild mode) it is approximate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from kspark.optimizers.base import MergeContext, ServerOptimizer
from kspark.weights import WeightSpec, apply_delta, weighted_mean


@dataclass(frozen=True)
class Delta:
    """The change of one replica's weights since it pulled the global weights.

    Attributes:
        shard: Integer, the replica's shard.
        vector: Array of `WeightSpec.size` elements, new minus old weights.
        num_examples: Number of examples that the replica trained on since it pulled.
    """

    shard: int
    vector: np.ndarray
    num_examples: float


class Aggregator:
    """Owns the global weights of one `fit`.

    Args:
        spec: `WeightSpec` of the model.
        weights: Vector of `spec.size` elements, which is changed in place. Pass a copy to
            keep the original.
        optimizer: `ServerOptimizer`, built or not.
        mode: String, `"synchronous"`, `"asynchronous"` or `"hogwild"`. Hogwild mode uses no
            lock.
    """

    def __init__(
        self, spec: WeightSpec, weights: np.ndarray, optimizer: ServerOptimizer, mode: str
    ) -> None:
        spec.check(weights, "initial weights vector")
        self.spec = spec
        self.weights = weights
        self.mode = mode
        self.version = 0
        self.optimizer = optimizer
        self.optimizer.lay_out(spec.trainable)
        self.optimizer.build(spec.trainable_size, spec.dtype)
        self._lock: AbstractContextManager[object] = (
            nullcontext() if mode == "hogwild" else threading.Lock()
        )
        self._project: Callable[[np.ndarray], None] | None = None

    def keep_constraints(self, project: Callable[[np.ndarray], None]) -> None:
        """Apply constraints after each merge from now on. Call it before the first one.

        A lock is used in hogwild mode, too: otherwise replicas would pull weights to which a delta
        was added, but not yet the constraints.

        Args:
            project: Function that applies the constraints to a vector of weights, in place.
        """
        self._project = project
        self._lock = threading.Lock()

    @property
    def keeps_constraints(self) -> bool:
        """Whether constraints are applied after each merge."""
        return self._project is not None

    @property
    def keeps_replica_weights(self) -> bool:
        """Whether replicas keep their own weights, and call `exchange` instead of `push`."""
        return self.optimizer.keeps_replica_weights

    def merge(self, deltas: Sequence[Delta], num_steps: int = 1, share: float = 1.0) -> int:
        """Merge the deltas of one round: `w <- S(w, sum n_k delta_k / sum n_k)`.

        The deltas are merged in the order of their shards, so that the result does not depend
        on the order of arrival.

        Args:
            deltas: Sequence of `Delta`. Deltas without examples are ignored.
            num_steps: Integer, the largest number of local batches of a delta. Defaults to
                `1`.
            share: Float, the fraction of all examples that is in the shards of the deltas.
                Defaults to `1.0`.

        Returns:
            Integer, the version after the merge.

        Raises:
            IncompatibleDeltaError: If a delta does not fit the spec. The weights do not change.
            AggregationError: If no delta has examples.
        """
        deltas = sorted((d for d in deltas if d.num_examples > 0), key=lambda d: d.shard)
        for item in deltas:
            self.spec.check(item.vector, f"delta of shard {item.shard}")
        counts = [d.num_examples for d in deltas]
        cut = self.spec.trainable_size
        trainable = self.optimizer.reduce([d.vector[:cut] for d in deltas], counts)
        context = MergeContext(self.mode, share=share, num_steps=num_steps)
        with self._lock:
            self.optimizer.apply(self.weights[:cut], trainable, context)
            if cut < self.spec.size:
                state = weighted_mean((d.vector[cut:], d.num_examples) for d in deltas)
                apply_delta(self.weights[cut:], state)
            self._complete_change()
            return self.version

    def push(
        self, vector: np.ndarray, share: float, base_version: int, num_steps: int = 1
    ) -> tuple[int, int]:
        """Apply the delta of one replica.

        Args:
            vector: Array of `spec.size` elements, new minus old weights. It is not modified.
            share: Float, the fraction of all examples that is in the replica's shard.
            base_version: Integer, version of the weights that the replica started from.
            num_steps: Integer, number of local batches of the delta. Defaults to `1`.

        Returns:
            Pair of integers: the version after this delta, and the staleness of the delta.

        Raises:
            IncompatibleDeltaError: If the vector does not fit the spec. The weights do not
                change.
        """
        self.spec.check(vector, "delta")
        with self._lock:
            staleness = max(0, self.version - base_version)
            context = MergeContext(self.mode, share=share, staleness=staleness, num_steps=num_steps)
            self._apply(vector, context)
            return self.version, staleness

    def exchange(
        self,
        vector: np.ndarray,
        share: float,
        base_version: int,
        out: np.ndarray,
        *,
        num_steps: int = 1,
        applied: bool = False,
    ) -> tuple[int, int]:
        """Exchange with one replica that keeps its own weights, atomically.

        Args:
            vector: Array of `spec.size` elements: the replica's trainable weights `x`, and
                the delta of its other weights. It is not modified.
            share: Float, the fraction of all examples that is in the replica's shard.
            base_version: Integer, version at the replica's last exchange.
            out: Array of `spec.size` elements to write to: the difference `x - c` from the
                global trainable weights `c` before they change, and the other global weights
                afterwards.
            num_steps: Integer, number of local batches since the last exchange. Defaults to
                `1`.
            applied: Boolean, whether the vector was applied before, in an exchange that is
                repeated. If so, the weights do not change. Defaults to `False`.

        Returns:
            Pair of integers: the version after this exchange, and its staleness.

        Raises:
            IncompatibleDeltaError: If the vector does not fit the spec. The weights do not
                change.
        """
        self.spec.check(vector, "vector of weights")
        cut = self.spec.trainable_size
        with self._lock:
            staleness = max(0, self.version - base_version)
            context = MergeContext(self.mode, share=share, staleness=staleness, num_steps=num_steps)
            np.subtract(vector[:cut], self.weights[:cut], out=out[:cut])
            out[cut:] = vector[cut:]
            if not applied:
                self._apply(out, context)
            out[cut:] = self.weights[cut:]
            return self.version, staleness

    def _apply(self, vector: np.ndarray, context: MergeContext) -> None:
        """Apply the vector of one replica. The caller holds the lock."""
        cut = self.spec.trainable_size
        self.optimizer.apply(self.weights[:cut], vector[:cut], context)
        if cut < self.spec.size:
            apply_delta(self.weights[cut:], vector[cut:], context.share)
        self._complete_change()

    def _complete_change(self) -> None:
        """Apply the constraints, and count the change. The caller holds the lock."""
        if self._project is not None:
            self._project(self.weights)
        self.version += 1

    def settled(self) -> np.ndarray:
        """Return the weights to show to the user.

        Returns:
            The vector itself. If constraints are applied, a copy that was taken between two
            changes, because replicas may push at any time.
        """
        if self._project is None:
            return self.weights
        with self._lock:
            return self.weights.copy()

    def pull(self, out: np.ndarray) -> int:
        """Copy the weights into `out`. The copy is consistent, except in hogwild mode.

        Returns:
            Integer, the version of the copy.
        """
        with self._lock:
            np.copyto(out, self.weights)
            return self.version

    def rule_state(self) -> dict[str, np.ndarray]:
        """Return a copy of the server optimizer's state, taken between two changes."""
        with self._lock:
            return self.optimizer.get_state()

    def replace(self, vector: np.ndarray) -> int:
        """Replace the weights by a copy of a vector that was computed elsewhere.

        Returns:
            Integer, the version after the change.
        """
        self.spec.check(vector, "weights vector")
        with self._lock:
            np.copyto(self.weights, vector)
            self.version += 1
            return self.version
