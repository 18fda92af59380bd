"""The own weights of replicas, for rules such as `ElasticAverage`.

With such a rule, a replica never takes over the global weights. Its own weights belong to its
shard. They are saved in a file beside the shard's files, so that another process, another job or a
retried task continues from them.

* `PushedWeights` belong to an asynchronous replica. They are saved after every exchange, with the
  exchange's number.
* `RoundWeights` belong to replicas that are merged together. They are saved after every epoch,
  because a failed epoch starts again from its beginning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from kspark.optimizers import MergeContext, ServerOptimizer
from kspark.weights import WeightSpec
from kspark.worker.tasks import FitTask

Projection = Callable[[np.ndarray], None]


class OwnWeights:
    """The own weights and slots of one shard, and their files.

    Args:
        rule: `ServerOptimizer` with `keeps_replica_weights`.
        spec: `WeightSpec` of the model.
        folder: `Path` of the shard's state files.
        share: Float, the shard's fraction of all examples.
        mode: String, the plan's mode.
        project: Function that applies the model's constraints to a vector of trainable weights, in
            place. Defaults to `None`: the model has none.
    """

    def __init__(
        self,
        rule: ServerOptimizer,
        spec: WeightSpec,
        folder: Path,
        share: float,
        mode: str,
        project: Projection | None = None,
    ) -> None:
        self._rule = rule
        self._project = project
        self._cut = spec.trainable_size
        self._folder = folder
        self._context = MergeContext(mode, share)
        self._slots = rule.replica_slots(self._cut, spec.dtype)

    def _update(self, local: np.ndarray, gap: np.ndarray, start: np.ndarray) -> None:
        """Apply the replica's half of an exchange, and the model's constraints, to `local`."""
        self._rule.replica_update(local, gap, start, self._slots, self._context)
        if self._project is not None:
            self._project(local)

    def _read(self, name: str, base: np.ndarray, numbers: Collection[int]) -> None:
        """Load a file into `base` and the slots if its exchange or epoch number is in `numbers`."""
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
        """Save the replica's trainable weights and slots. An incomplete file is never visible."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{name}.{os.getpid()}"
        with partial.open("wb") as file:
            for array in (np.array(number), local, *(v for _, v in sorted(self._slots.items()))):
                np.save(file, array, allow_pickle=False)
        os.replace(partial, self._folder / name)


class PushedWeights(OwnWeights):
    """Own weights of a replica that pushes. The driver's answer is their gap to the centre.

    Args:
        rule: As for `OwnWeights`, like all other arguments.

    Attributes:
        answer: Vector for the driver's answer.
    """

    def __init__(
        self,
        rule: ServerOptimizer,
        spec: WeightSpec,
        folder: Path,
        share: float,
        mode: str,
        project: Projection | None = None,
    ) -> None:
        super().__init__(rule, spec, folder, share, mode, project)
        self.answer = np.empty(spec.size, spec.dtype)

    def restore(self, base: np.ndarray, exchanges: int) -> None:
        """Load the shard's own trainable weights after `exchanges` exchanges into `base`.

        If the process died before an answer arrived, the file contains the weights of one exchange
        earlier. Then the centre has moved, and the replica continues from these weights. If there
        is no file, because the shard is new or was lost with its host, `base` remains the centre.
        """
        self._read("own-weights", base, (exchanges, exchanges - 1))

    def leave(self, delta: np.ndarray, base: np.ndarray) -> None:
        """Convert a delta since `base`, in place, to own weights and state delta for the push."""
        delta[: self._cut] += base[: self._cut]

    def move(self, base: np.ndarray, pushed: np.ndarray, exchanges: int) -> None:
        """Apply the replica's half of an exchange, with the gap in `answer`, and save the weights.

        Args:
            base: Vector, start of the local training. Overwritten with the weights to continue
                from.
            pushed: Vector that was pushed. It is overwritten.
            exchanges: Integer, number of the exchange.
        """
        cut, local = self._cut, pushed[: self._cut]
        gap, start = self.answer[:cut], base[:cut]
        self._update(local, gap, start)
        base[:cut] = local
        base[cut:] = self.answer[cut:]
        self._write("own-weights", local, exchanges)


class RoundWeights(OwnWeights):
    """Own weights of a replica that is merged with all others, for one try at an epoch.

    All replicas measure their gaps to the same centre, and send gaps instead of deltas. The driver
    merges both in the same way. A replica does not need the driver's answer for its own update.

    Args:
        rule: As for `OwnWeights`, like all other arguments except `epoch`.
        epoch: Integer.

    Attributes:
        centre: Vector, the global weights and state to which the gaps are measured. With several
            exchanges per epoch, callers write the merged weights into it.
    """

    def __init__(
        self,
        rule: ServerOptimizer,
        spec: WeightSpec,
        folder: Path,
        share: float,
        mode: str,
        epoch: int,
        project: Projection | None = None,
    ) -> None:
        super().__init__(rule, spec, folder, share, mode, project)
        self.centre = np.empty(spec.size, spec.dtype)
        self._local = np.empty(self._cut, spec.dtype)
        self._epoch = epoch

    @classmethod
    def of(
        cls,
        fit: FitTask,
        spec: WeightSpec,
        folder: Path,
        num_examples: int,
        epoch: int,
        project: Projection | None = None,
    ) -> RoundWeights | None:
        """Create the own weights of a shard, or return `None` if the fit's rule has none."""
        if fit.rule is None:
            return None
        share = fit.share(num_examples)
        return cls(fit.rule, spec, folder, share, fit.plan.mode, epoch, project)

    def restore(self, centre: np.ndarray) -> np.ndarray:
        """Return the weights at the beginning of the epoch: the own ones after the epoch before.

        A shard without a file for that epoch begins at the centre: in the fit's first epoch, if
        the file was lost with its host, or if the file belongs to an earlier epoch.

        Args:
            centre: Vector, the global weights. They are copied.

        Returns:
            A new vector of own trainable weights and the centre's state.
        """
        self.centre[:] = centre
        base = centre.copy()
        before = self._epoch - 1
        self._read(self._name(before), base, (before,))
        return base

    def leave(self, delta: np.ndarray, base: np.ndarray) -> None:
        """Convert a delta since `base`, in place, to gap and state delta for the exchange."""
        cut = self._cut
        np.add(delta[:cut], base[:cut], out=self._local)
        np.subtract(self._local, self.centre[:cut], out=delta[:cut])

    def move(self, base: np.ndarray, gap: np.ndarray) -> None:
        """Apply the replica's half of an exchange, opposite to the movement of the centre.

        Args:
            base: Vector, start of the local training. Overwritten with the weights to continue
                from.
            gap: Vector that `leave` converted.
        """
        cut = self._cut
        self._update(self._local, gap[:cut], base[:cut])
        base[:cut] = self._local
        base[cut:] = self.centre[cut:]

    def save(self, base: np.ndarray) -> None:
        """Save the weights at the end of the epoch, and keep those at its start for a restart."""
        self._write(self._name(self._epoch), base[: self._cut], self._epoch)
        (self._folder / self._name(self._epoch - 2)).unlink(missing_ok=True)

    @staticmethod
    def _name(epoch: int) -> str:
        return f"own-weights-{epoch}"
