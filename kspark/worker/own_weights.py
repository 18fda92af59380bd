"""The weights that a replica keeps for itself, where the rule lets it.

Under `ElasticAverage` a replica never takes over the global weights. Its own
ones belong to its shard: they are written beside the shard's files after every
exchange, so that another process, another job or a retried task goes on from
them. The number of the exchange is written with them.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kspark.optimizers import MergeContext, ServerOptimizer
from kspark.weights import WeightSpec


class OwnWeights:
    """One shard's own weights and slots, and their file.

    Args:
        rule: `ServerOptimizer` with `keeps_replica_weights`.
        spec: `WeightSpec` of the model.
        folder: `Path` of the shard's state files.
        share: Float, the shard's part of all examples.
        mode: String, the plan's mode.
    """

    def __init__(
        self, rule: ServerOptimizer, spec: WeightSpec, folder: Path, share: float, mode: str
    ) -> None:
        self.answer = np.empty(spec.size, spec.dtype)
        self._rule = rule
        self._cut = spec.trainable_size
        self._path = folder / "own-weights"
        self._context = MergeContext(mode, share)
        self._slots = rule.replica_slots(self._cut, spec.dtype)

    def restore(self, base: np.ndarray, exchanges: int) -> None:
        """Put the shard's own trainable weights into `base`, after so many exchanges.

        If the process died before an answer came, they are those of one exchange earlier:
        the centre has moved, the replica goes on from where it was before. A shard without
        weights of its own (new, or lost with its host) begins where `base` is, at the centre.
        """
        try:
            with self._path.open("rb") as file:
                if int(np.load(file, allow_pickle=False)) not in (exchanges, exchanges - 1):
                    return
                base[: self._cut] = np.load(file, allow_pickle=False)
                for name in sorted(self._slots):
                    self._slots[name][:] = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return

    def leave(self, change: np.ndarray, base: np.ndarray) -> None:
        """Make of a delta since `base` what is pushed: own weights, and the state's delta."""
        change[: self._cut] += base[: self._cut]

    def move(self, base: np.ndarray, pushed: np.ndarray, exchanges: int) -> None:
        """The replica's half of exchange number `exchanges`, whose gap is in `answer`.

        Args:
            base: Vector, where local training began; becomes where it goes on.
            pushed: Vector, what was pushed; overwritten.
        """
        cut, local = self._cut, pushed[: self._cut]
        gap, start = self.answer[:cut], base[:cut]
        self._rule.replica_update(local, gap, start, self._slots, self._context)
        base[:cut] = local
        base[cut:] = self.answer[cut:]
        self._save(local, exchanges)

    def _save(self, local: np.ndarray, exchanges: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f".own-weights.{os.getpid()}")
        with partial.open("wb") as file:
            for array in (np.array(exchanges), local, *(v for _, v in sorted(self._slots.items()))):
                np.save(file, array, allow_pickle=False)
        os.replace(partial, self._path)
