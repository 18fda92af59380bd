"""Data that a Python worker keeps between tasks: the built replica, and each shard's state.

A replica is built once per process and fit. If all of its state is in variables, a later fit of
the same model, or of another one of its architecture, takes it over with what it has compiled. The
optimizer state of a shard, with its integers and RNG state, belongs to the shard and not to the
process. It is saved beside the shard's files after each epoch. So the next round may run in any
process of the host, and a retried task starts from the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kspark.plan import TrainingPlan
from kspark.replica import ReplicaSpec
from kspark.replica.building import build, renewed
from kspark.shards import Shard, ShardHandle, is_here
from kspark.worker.memory import check_memory, hold
from kspark.worker.names import set_names
from kspark.worker.tasks import MissingShard, Result, ShardResult, State, widened

if TYPE_CHECKING:
    from kspark.replica import Replica


@dataclass
class Kept:
    """The replica of a fit.

    Attributes:
        replica: `Replica`.
        start: `State` at the start of the fit.
        renewable: Boolean, whether a later fit of an equal model may take the replica over.
        names: Tuple of strings, the `names` of the model for which the replica was built.
    """

    digest: str
    replica: Replica
    start: State
    renewable: bool
    names: tuple[str, ...] = ()


_replicas: dict[str, Kept] = {}
"""The replica by fit. At most one entry."""

_standing: dict[str, tuple[Replica, int, int, list[np.ndarray]]] = {}
"""By fit: the replica, shard and epoch that this process trained last, and its fixed state."""

SPARE = ""
"""Stands for the fit of a replica whose fit is over."""


def replica_for(spec: ReplicaSpec, key: str, threads: int) -> Replica:
    """Return this process' replica of a model.

    The first call for a fit builds it, or renews that of an earlier fit of an equal model. The
    replica of another model is freed.
    """
    kept = _replicas.get(key)
    if kept is not None and kept.digest == spec.digest:
        return kept.replica
    kept = taken_over(spec)
    _replicas.clear()
    _standing.clear()
    if kept is None:
        check_memory(threads)
        kept = Kept(spec.digest, build(spec, threads), ([], []), True, spec.names)
    set_names(kept.names, spec.names)
    replica = kept.replica
    start = (replica.get_optimizer_state(), replica.get_fixed())
    hold(replica, spec.weights.nbytes + sum(array.nbytes for array in start[0]))
    _replicas[key] = replace(kept, start=start, renewable=spec.values is not None)
    return replica


def taken_over(spec: ReplicaSpec) -> Kept | None:
    """Return the replica of another fit, renewed for a spec; `None` if there is none."""
    for kept in _replicas.values():
        if kept.renewable and kept.digest == spec.digest and renewed(kept.replica, spec):
            return kept
    return None


def release(key: str) -> None:
    """Free the rows of a finished fit, and its replica unless a later fit may take it over."""
    _standing.pop(key, None)
    kept = _replicas.pop(key, None)
    if kept is not None and kept.renewable:
        kept.replica.forget_rows()
        _replicas[SPARE] = replace(kept, start=([], []))


class ShardState:
    """The files beside a shard that store its replica's state between epochs.

    Args:
        fit_id: String, name of the fit.
        shard: `Shard` to which the state belongs.
    """

    def __init__(self, fit_id: str, shard: Shard) -> None:
        self.fit_id = fit_id
        self.index = shard.index
        self.folder = Path(shard.state_path(f"state-{fit_id}"))

    @classmethod
    def of(cls, fit_id: str, handle: ShardHandle) -> ShardState:
        """Create the state files of a shard without opening the shard."""
        return cls(fit_id, Shard(handle))

    def depart(self) -> None:
        """Note that this process' replica begins to train, and is not at the end of an epoch."""
        _standing.pop(self.fit_id, None)

    def restore(
        self,
        replica: Replica,
        epoch: int,
        plan: TrainingPlan,
        batches: int,
        resumed: bool = False,
        since: int | None = None,
    ) -> bool:
        """Restore a replica to this shard's state at the beginning of `epoch`.

        This is the state after the epoch before, or after an earlier one if a process died before
        it saved its state. A replica that has just trained the shard already has it.

        Args:
            replica: `Replica`.
            epoch: Integer.
            plan: `TrainingPlan`.
            batches: Integer, the shard's batches per epoch; 0 if nobody knows it.
            resumed: Boolean, whether the fit began with the shard's state of a checkpoint.
                Defaults to `False`.
            since: Integer, the epoch of the oldest state that may be used. Older ones have stayed
                here while the shard trained on another executor. Defaults to `None`: any.

        Returns:
            Boolean, `False` if the state was lost with its host. Then the replica gets the state
            of the fit's start, except that a learning rate schedule continues at its step if the
            number of batches per epoch is known.
        """
        standing = _standing.pop(self.fit_id, None)
        if standing is not None and standing[:3] == (replica, self.index, epoch - 1):
            replica.set_fixed(standing[3])  # An evaluation may have drawn random numbers.
            return True
        loaded = self._load_before(epoch, since)
        if loaded is None:
            optimizer, fixed = _replicas[self.fit_id].start
            replica.set_optimizer_state(optimizer)
            replica.set_fixed(fixed)
            replica.reseed(plan.seed, self.index)
            replica.advance_schedule((epoch - plan.initial_epoch) * batches)
            return epoch <= plan.initial_epoch and not resumed
        replica.set_optimizer_state(loaded[0])
        replica.set_fixed(loaded[1])
        return True

    def save(self, replica: Replica, epoch: int) -> None:
        """Save the replica's state after `epoch`, and delete states that are not needed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        optimizer, fixed = replica.get_optimizer_state(), replica.get_fixed()
        partial = self.folder / f".{epoch}.{os.getpid()}"
        with partial.open("wb") as file:
            for array in (np.array(len(optimizer)), *optimizer, *fixed):
                np.save(file, widened(array), allow_pickle=False)
        os.replace(partial, self._path(epoch))
        self._forget_before(epoch, "state")
        _standing[self.fit_id] = (replica, self.index, epoch, fixed)

    def load(self, epoch: int) -> State | None:
        """Load the state after `epoch`, or return `None` if it is not on this host."""
        try:
            with self._path(epoch).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                count = int(np.load(file, allow_pickle=False))
                arrays = []
                while file.tell() < size:
                    arrays.append(np.load(file, allow_pickle=False))
        except FileNotFoundError:
            return None
        return arrays[:count], arrays[count:]

    def save_residual(self, residual: np.ndarray, epoch: int) -> None:
        """Save the residual of compression after `epoch`, as `save` does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".residual.{epoch}.{os.getpid()}"
        with partial.open("wb") as file:
            np.save(file, residual, allow_pickle=False)
        os.replace(partial, self._residual_path(epoch))
        self._forget_before(epoch, "residual")

    def load_residual(self, epoch: int) -> np.ndarray | None:
        """Load the residual after `epoch`, or return `None` if it is not on this host."""
        try:
            with self._residual_path(epoch).open("rb") as file:
                residual: np.ndarray = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return None
        return residual

    def residual_before(self, epoch: int, since: int | None = None) -> np.ndarray | None:
        """Load the residual after the last epoch before `epoch`; `since` as in `restore`."""
        before = self._before(epoch, "residual", since)
        return self.load_residual(before[-1]) if before else None

    def newest(self, until: int | None = None) -> int | None:
        """Return the last epoch with a state here, `None` without one.

        Args:
            until: Integer, the last epoch that counts. Defaults to `None`: any.
        """
        kept = (int(path.stem) for path in self.folder.glob("*.state"))
        return max((e for e in kept if until is None or e <= until), default=None)

    def has_since(self, epoch: int | None, before: int) -> bool:
        """Whether there is a state of `epoch` or of one between it and `before`.

        Args:
            epoch: Integer; `None` asks for no state.
            before: Integer, the epoch that begins.
        """
        return epoch is None or bool(self._before(before, "state", epoch))

    def _residual_path(self, epoch: int) -> Path:
        return self.folder / f"{epoch}.residual"

    def _load_before(self, epoch: int, since: int | None) -> State | None:
        before = self._before(epoch, "state", since)
        return self.load(before[-1]) if before else None

    def _before(self, epoch: int, kind: str, since: int | None = None) -> list[int]:
        """Return the epochs before `epoch` that have files. A late shard has skipped some."""
        kept = sorted(int(path.stem) for path in self.folder.glob(f"*.{kind}"))
        return [e for e in kept if e < epoch and (since is None or e >= since)]

    def _forget_before(self, epoch: int, kind: str) -> None:
        """Delete old files. Keep the last ones before `epoch`, in case it starts again."""
        for old in self._before(epoch, kind)[:-1]:
            (self.folder / f"{old}.{kind}").unlink(missing_ok=True)

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{epoch}.state"


def note_of(state: ShardState) -> Path:
    """Return the file that says why the last process of a shard was ended."""
    return state.folder / "ended"


class Tries:
    """Counts the processes that died while they trained an epoch of a shard.

    ```python
    tries = Tries(state, epoch, allowed)
    if not tries.exhausted:
        with tries:
            ...
    ```

    A file counts the tries. It is written before the work, and reset after it, also if the work
    raises an exception. So it counts the processes that died.

    Args:
        state: `ShardState`, whose folder contains the file.
        epoch: Integer.
        allowed: Integer, number of processes that may die.

    Attributes:
        count: Integer, number of processes that died before.
    """

    def __init__(self, state: ShardState, epoch: int, allowed: int) -> None:
        self._path = state.folder / f"tries-{epoch}"
        self._note = note_of(state)
        self._allowed = allowed
        self.count = len(self._path.read_bytes()) if self._path.exists() else 0

    @property
    def exhausted(self) -> bool:
        """Whether more processes died than allowed."""
        return self.count > self._allowed

    def __enter__(self) -> Tries:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._note.unlink(missing_ok=True)  # It does not say why this process ends.
        self._path.write_bytes(b"." * (self.count + 1))
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)
        elif issubclass(kind, Exception):
            with contextlib.suppress(FileNotFoundError):  # The fit was cleaned up.
                self._path.write_bytes(b"." * self.count)
        # Other exceptions, such as `SystemExit`, end the process: they count.


def fetch_state(fit_id: str, epoch: int, index: int, handles: Iterable[bytes]) -> Iterator[Result]:
    """Load the states of one partition's shards after `epoch`. Lost ones are omitted."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        loaded = ShardState.of(fit_id, handle).load(epoch)
        if loaded is not None:
            yield ShardResult(handle.index, handle.num_examples, state=loaded)
        elif not is_here(handle):
            yield MissingShard.of(handle)
