"""The weights that a replica keeps for itself, where the rule lets it.

Under `ElasticAverage` a replica never takes over the global weights. Its own
ones belong to its shard: they are written beside the shard's files, so that
another process, another job or a retried task goes on from them.

* `PushedWeights`, of a replica that waits for nobody, are written after every
  exchange, with its number.
* `RoundWeights`, of replicas that are merged together, are written after every
  epoch: one that fails starts again from its beginning.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from kspark.optimizers import MergeContext, ServerOptimizer
from kspark.weights import WeightSpec
from kspark.worker.tasks import FitTask


class OwnWeights:
    """One shard's own weights and slots, and their files.

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
        self._rule = rule
        self._cut = spec.trainable_size
        self._folder = folder
        self._context = MergeContext(mode, share)
        self._slots = rule.replica_slots(self._cut, spec.dtype)

    def _read(self, name: str, base: np.ndarray, numbers: Collection[int]) -> None:
        """Put what a file keeps into `base`, if it is one of these numbers'."""
        try:
            with (self._folder / name).open("rb") as file:
                if int(np.load(file, allow_pickle=False)) not in numbers:
                    return
                base[: self._cut] = np.load(file, allow_pickle=False)
                for slot in sorted(self._slots):
                    self._slots[slot][:] = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return

    def _write(self, name: str, local: np.ndarray, number: int) -> None:
        """Keep the replica's trainable weights and slots; a file is whole or not there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{name}.{os.getpid()}"
        with partial.open("wb") as file:
            for array in (np.array(number), local, *(v for _, v in sorted(self._slots.items()))):
                np.save(file, array, allow_pickle=False)
        os.replace(partial, self._folder / name)


class PushedWeights(OwnWeights):
    """Own weights of a replica that pushes: the driver answers with the gap to the centre.

    Args:
        rule: As for `OwnWeights`, and so are the others.

    Attributes:
        answer: Vector for the driver's answer.
    """

    def __init__(
        self, rule: ServerOptimizer, spec: WeightSpec, folder: Path, share: float, mode: str
    ) -> None:
        super().__init__(rule, spec, folder, share, mode)
        self.answer = np.empty(spec.size, spec.dtype)

    def restore(self, base: np.ndarray, exchanges: int) -> None:
        """Put the shard's own trainable weights into `base`, after so many exchanges.

        If the process died before an answer came, they are those of one exchange earlier:
        the centre has moved, the replica goes on from where it was before. A shard without
        weights of its own (new, or lost with its host) begins where `base` is, at the centre.
        """
        self._read("own-weights", base, (exchanges, exchanges - 1))

    def leave(self, delta: np.ndarray, base: np.ndarray) -> None:
        """Make of a delta since `base` what is pushed: own weights, and the state's delta."""
        delta[: self._cut] += base[: self._cut]

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
        self._write("own-weights", local, exchanges)


class RoundWeights(OwnWeights):
    """Own weights of a replica that is merged with all others, for one try at one epoch.

    All replicas measure their gaps to the same centre, and bring these instead of deltas:
    the driver merges both in the same way. Nobody needs the driver's answer to move.

    Args:
        rule: As for `OwnWeights`, and so are the others but the last.
        epoch: Integer.

    Attributes:
        centre: Vector, the global weights that the gaps are measured to, and state as it is
            there. Whoever exchanges more than once an epoch puts the merged weights here.
    """

    def __init__(
        self,
        rule: ServerOptimizer,
        spec: WeightSpec,
        folder: Path,
        share: float,
        mode: str,
        epoch: int,
    ) -> None:
        super().__init__(rule, spec, folder, share, mode)
        self.centre = np.empty(spec.size, spec.dtype)
        self._local = np.empty(self._cut, spec.dtype)
        self._epoch = epoch

    @classmethod
    def of(
        cls, fit: FitTask, spec: WeightSpec, folder: Path, num_examples: int, epoch: int
    ) -> RoundWeights | None:
        """Those of a shard of so many examples, or `None` if the fit's rule keeps none."""
        if fit.rule is None:
            return None
        return cls(fit.rule, spec, folder, fit.share(num_examples), fit.plan.mode, epoch)

    def restore(self, centre: np.ndarray) -> np.ndarray:
        """The weights that the epoch begins with: the shard's own ones after the epoch before.

        A shard without them (in the fit's first epoch, or lost with its host) begins at the
        centre. So does one whose file is of an earlier epoch.

        Args:
            centre: Vector, the global weights; copied.

        Returns:
            A new vector: own trainable weights, and state as it is at the centre.
        """
        self.centre[:] = centre
        base = centre.copy()
        before = self._epoch - 1
        self._read(self._name(before), base, (before,))
        return base

    def leave(self, delta: np.ndarray, base: np.ndarray) -> None:
        """Make of a delta since `base` what is brought: the gap, and the state's delta."""
        cut = self._cut
        np.add(delta[:cut], base[:cut], out=self._local)
        np.subtract(self._local, self.centre[:cut], out=delta[:cut])

    def move(self, base: np.ndarray, gap: np.ndarray) -> None:
        """The replica's half of an exchange: by as much as the centre, the other way.

        Args:
            base: Vector, where local training began; becomes where it goes on.
            gap: Vector, what `leave` has made.
        """
        cut = self._cut
        self._rule.replica_update(self._local, gap[:cut], base[:cut], self._slots, self._context)
        base[:cut] = self._local
        base[cut:] = self.centre[cut:]

    def save(self, base: np.ndarray) -> None:
        """Keep where the epoch ended, and where it began: it may have to start again."""
        self._write(self._name(self._epoch), base[: self._cut], self._epoch)
        (self._folder / self._name(self._epoch - 2)).unlink(missing_ok=True)

    @staticmethod
    def _name(epoch: int) -> str:
        return f"own-weights-{epoch}"
