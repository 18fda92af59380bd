"""Global weights and the rule that moves them.

Driver side, one object per `fit`. Replicas reach it through Spark's result
path (rounds) or through `coordinator` and `transport` (live road); it opens
no socket itself. All modes change weights here and nowhere else:

* `merge`   one weighted mean of many deltas, then the server optimizer;
* `push`    one replica's delta, applied as it comes;
* `exchange` the same with a replica that keeps weights of its own;
* `replace` weights that were computed elsewhere (exact synchronous steps).

Invariant: `version` counts the changes that produced `weights`. Without a
lock (hogwild) it is only about right.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from kspark.optimizers.base import MergeContext, ServerOptimizer
from kspark.weights import WeightSpec, apply_delta, weighted_mean


@dataclass(frozen=True)
class Delta:
    """What one replica changed since it pulled.

    Attributes:
        shard: Integer, the replica's shard.
        vector: Array of `WeightSpec.size` elements, new minus old.
        num_examples: Integer, examples seen since that pull.
    """

    shard: int
    vector: np.ndarray
    num_examples: float


class Aggregator:
    """Owns the global weights of one `fit`.

    Args:
        spec: `WeightSpec` of the model.
        weights: Vector of `spec.size` elements; the aggregator works on it in
            place, so hand over a copy to keep the original.
        optimizer: Built or unbuilt `ServerOptimizer`.
        mode: `"synchronous"`, `"asynchronous"` or `"hogwild"`. In hogwild mode
            nothing is locked.
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
        self.optimizer.build(spec.trainable_size, spec.dtype)
        self._lock: AbstractContextManager[object] = (
            nullcontext() if mode == "hogwild" else threading.Lock()
        )

    @property
    def keeps_replica_weights(self) -> bool:
        """Whether replicas keep weights of their own, and `exchange` instead of `push`."""
        return self.optimizer.keeps_replica_weights

    def merge(self, deltas: Sequence[Delta], num_steps: int = 1, share: float = 1.0) -> int:
        """Merge one round's deltas: `w <- S(w, sum n_k delta_k / sum n_k)`.

        Args:
            deltas: Sequence of `Delta`. Those of zero examples weigh nothing.
                Merged in the order of their shards, so that the result does
                not depend on the order of arrival.
            num_steps: Integer, local batches behind the longest of them.
            share: Float, their shards' part of all examples, for rules that count by it.

        Returns:
            Integer, the version after the merge.

        Raises:
            IncompatibleDeltaError: If a delta does not fit the spec; nothing changes.
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
            self.version += 1
            return self.version

    def push(
        self, vector: np.ndarray, share: float, base_version: int, num_steps: int = 1
    ) -> tuple[int, int]:
        """Apply one replica's delta at once.

        Args:
            vector: Array of `spec.size` elements, new minus old; not modified.
            share: Float, the replica's part of all examples.
            base_version: Integer, version of the weights the replica started from.
            num_steps: Integer, local batches behind the delta.

        Returns:
            Pair of integers: the version after this delta, and its staleness.

        Raises:
            IncompatibleDeltaError: If the vector does not fit the spec; nothing changes.
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
        """Meet one replica that keeps weights of its own, under one lock.

        Args:
            vector: Array of `spec.size` elements: the replica's own trainable weights, and
                the delta of the others; not modified.
            share: Float, the replica's part of all examples.
            base_version: Integer, version at the replica's last exchange.
            out: Array that becomes the gap, `x - c` before the weights `c` moved, and
                the other weights as they are now.
            num_steps: Integer, local batches behind the vector.
            applied: Boolean. The weights moved for this vector before: only answer.

        Returns:
            Pair of integers: the version after this exchange, and its staleness.

        Raises:
            IncompatibleDeltaError: If the vector does not fit the spec; nothing changes.
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
        """One replica's change, inside the lock."""
        cut = self.spec.trainable_size
        self.optimizer.apply(self.weights[:cut], vector[:cut], context)
        if cut < self.spec.size:
            apply_delta(self.weights[cut:], vector[cut:], context.share)
        self.version += 1

    def pull(self, out: np.ndarray) -> int:
        """Copy the weights into `out`, which is never torn but in hogwild mode.

        Returns:
            Integer, the version copied.
        """
        with self._lock:
            np.copyto(out, self.weights)
            return self.version

    def rule_state(self) -> dict[str, np.ndarray]:
        """A copy of the rule's state, between two changes."""
        with self._lock:
            return self.optimizer.get_state()

    def replace(self, vector: np.ndarray) -> int:
        """Take over weights that were computed elsewhere.

        Returns:
            Integer, the version after the change.
        """
        self.spec.check(vector, "weights vector")
        with self._lock:
            np.copyto(self.weights, vector)
            self.version += 1
            return self.version
