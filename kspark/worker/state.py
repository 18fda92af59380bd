"""What a Python worker keeps between tasks: the built replica, and each shard's state.

A replica is built once per process and fit. A shard's optimizer state (and
its integer and RNG variables) belongs to the shard, not to the process: it is
written beside the shard's files after each epoch, so that the next round may
run in any process of the host, and a retried task starts from the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from kspark.plan import TrainingPlan
from kspark.replica import Replica, ReplicaSpec
from kspark.replica.building import build
from kspark.shards import Shard, ShardHandle
from kspark.worker.tasks import MissingShard, Result, ShardResult, State

_replicas: dict[str, tuple[str, Replica, State]] = {}

_standing: dict[str, tuple[Replica, int, int, list[np.ndarray]]] = {}
"""By fit: which replica trained which shard and epoch last in this process; its fixed state."""


def replica_for(spec: ReplicaSpec, key: str, threads: int) -> Replica:
    """The process's replica of a model, built at the first call; older ones are dropped."""
    kept = _replicas.get(key)
    if kept is not None and kept[0] == spec.digest:
        return kept[1]
    _replicas.clear()
    _standing.clear()
    replica = build(spec, threads)
    _replicas[key] = (spec.digest, replica, (replica.get_optimizer_state(), replica.get_fixed()))
    return replica


def release(key: str) -> None:
    """Forget the replica of a fit that is over."""
    _replicas.pop(key, None)
    _standing.pop(key, None)


class ShardState:
    """The files beside one shard that carry its replica's state from epoch to epoch.

    Args:
        fit_id: String, the fit.
        shard: `Shard` that the state belongs to.
    """

    def __init__(self, fit_id: str, shard: Shard) -> None:
        self.fit_id = fit_id
        self.index = shard.index
        self.folder = Path(shard.state_path(f"state-{fit_id}"))

    @classmethod
    def of(cls, fit_id: str, handle: ShardHandle) -> ShardState:
        """The state files of a shard that need not be opened."""
        return cls(fit_id, Shard(handle))

    def depart(self) -> None:
        """The process's replica begins to train: it is at the end of no epoch meanwhile."""
        _standing.pop(self.fit_id, None)

    def restore(self, replica: Replica, epoch: int, plan: TrainingPlan, batches: int) -> bool:
        """Bring a replica to this shard's state at the beginning of `epoch`.

        That is its state after the epoch before, or the one before that if the process
        died before it could write it. A replica that has just trained that shard is in it.

        Args:
            replica: `Replica`.
            epoch: Integer.
            plan: `TrainingPlan`.
            batches: Integer, the shard's batches an epoch.

        Returns:
            Boolean, `False` if there should be such a state but its host is gone. The
            replica has the state of the fit's start then; only a learning rate schedule
            goes on where it was.
        """
        standing = _standing.pop(self.fit_id, None)
        if standing is not None and standing[:3] == (replica, self.index, epoch - 1):
            replica.set_fixed(standing[3])  # an evaluation may have moved on random numbers
            return True
        loaded = self._load_before(epoch)
        if loaded is None:
            optimizer, fixed = _replicas[self.fit_id][2]
            replica.set_optimizer_state(optimizer)
            replica.set_fixed(fixed)
            replica.reseed(plan.seed, self.index)
            replica.advance_schedule((epoch - plan.initial_epoch) * batches)
            return epoch <= plan.initial_epoch
        replica.set_optimizer_state(loaded[0])
        replica.set_fixed(loaded[1])
        return True

    def save(self, replica: Replica, epoch: int) -> None:
        """Keep the replica's state after `epoch`; the one before last is not needed any more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        optimizer, fixed = replica.get_optimizer_state(), replica.get_fixed()
        partial = self.folder / f".{epoch}.{os.getpid()}"
        with partial.open("wb") as file:
            for array in (np.array(len(optimizer)), *optimizer, *fixed):
                np.save(file, storable(array), allow_pickle=False)
        os.replace(partial, self._path(epoch))
        self._forget_before(epoch, "state")
        _standing[self.fit_id] = (replica, self.index, epoch, fixed)

    def load(self, epoch: int) -> State | None:
        """The state after `epoch`, or `None` if it is not on this host."""
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
        """Keep what compression has left over after `epoch`, as `save` does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".residual.{epoch}.{os.getpid()}"
        with partial.open("wb") as file:
            np.save(file, residual, allow_pickle=False)
        os.replace(partial, self._residual_path(epoch))
        self._forget_before(epoch, "residual")

    def load_residual(self, epoch: int) -> np.ndarray | None:
        """What compression had left over after `epoch`, or `None` if it is not on this host."""
        try:
            with self._residual_path(epoch).open("rb") as file:
                residual: np.ndarray = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return None
        return residual

    def residual_before(self, epoch: int) -> np.ndarray | None:
        """As `load_residual`, after the last epoch before this one that the shard has trained."""
        before = self._before(epoch, "residual")
        return self.load_residual(before[-1]) if before else None

    def _residual_path(self, epoch: int) -> Path:
        return self.folder / f"{epoch}.residual"

    def _load_before(self, epoch: int) -> State | None:
        before = self._before(epoch, "state")
        return self.load(before[-1]) if before else None

    def _before(self, epoch: int, kind: str) -> list[int]:
        """The epochs before one that have files. A shard that is late misses some."""
        kept = sorted(int(path.stem) for path in self.folder.glob(f"*.{kind}"))
        return [e for e in kept if e < epoch]

    def _forget_before(self, epoch: int, kind: str) -> None:
        """Keep the files of an epoch and those that it began with: it may be run again."""
        for old in self._before(epoch, kind)[:-1]:
            (self.folder / f"{old}.{kind}").unlink(missing_ok=True)

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{epoch}.state"


def storable(array: np.ndarray) -> np.ndarray:
    """The same values in a dtype that files know; Keras casts bfloat16 back without loss."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


class Tries:
    """Counts processes that died over one epoch of one shard.

    ```python
    tries = Tries(state, epoch, allowed)
    if not tries.exhausted:
        with tries:
            ...
    ```

    A try is noted before the work and the note taken back after it, also when an
    exception ends the work; notes that are found were left by processes that died.

    Args:
        state: `ShardState` beside whose files the notes are.
        epoch: Integer.
        allowed: Integer, processes that may die.

    Attributes:
        count: Integer, processes that died before this one.
    """

    def __init__(self, state: ShardState, epoch: int, allowed: int) -> None:
        self._path = state.folder / f"tries-{epoch}"
        self._allowed = allowed
        self.count = len(self._path.read_bytes()) if self._path.exists() else 0

    @property
    def exhausted(self) -> bool:
        """Whether too many processes died already."""
        return self.count > self._allowed

    def __enter__(self) -> Tries:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(b"." * (self.count + 1))
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)
        elif issubclass(kind, Exception):
            with contextlib.suppress(FileNotFoundError):  # the fit was cleaned up meanwhile
                self._path.write_bytes(b"." * self.count)
        # `SystemExit` and its like end the process: the note stays.


def fetch_state(fit_id: str, epoch: int, index: int, handles: Iterable[bytes]) -> Iterator[Result]:
    """The states of the shards of one partition after `epoch`; lost ones are left out."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        loaded = ShardState.of(fit_id, handle).load(epoch)
        if loaded is not None:
            yield ShardResult(handle.index, handle.num_examples, state=loaded)
        elif handle.host != platform.node():
            yield MissingShard(handle.index, platform.node(), handle.host)
