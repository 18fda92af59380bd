"""The files in which a shard keeps what it needs at the end of an epoch, for checkpoints.

These are the files of `ShardState` and of `OwnWeights`. A checkpoint has their bytes, so that a
shard goes on from exactly what it had.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kspark.shards import ShardHandle, is_here
from kspark.worker.state import ShardState
from kspark.worker.tasks import MissingShard, Result, ShardResult

PUSHED = "pushed-weights"


def names_of(epoch: int) -> dict[str, str]:
    """Return the name of each kind of file after an epoch."""
    return {
        "state": f"{epoch}.state",
        "residual": f"{epoch}.residual",
        "round-weights": f"own-weights-{epoch}",
        PUSHED: "own-weights",
    }


def files_in(folder: Path, epoch: int) -> dict[str, np.ndarray]:
    """Return the bytes of the files in a shard's folder after an epoch, by their kinds."""
    files = {kind: folder / name for kind, name in names_of(epoch).items()}
    return {kind: np.fromfile(file, np.uint8) for kind, file in files.items() if file.exists()}


def kept_files(fit_id: str, epoch: int, handle: ShardHandle) -> Result:
    """Return the files that a shard keeps after an epoch.

    If its state is lost with its host, the result has no files.
    """
    found = files_in(ShardState.of(fit_id, handle).folder, epoch)
    if not found and not is_here(handle):
        return MissingShard.of(handle)
    return ShardResult(handle.index, handle.num_examples, files=found)


def fetch_files(fit_id: str, epoch: int, index: int, handles: Iterable[bytes]) -> Iterator[Result]:
    """Return the files that the shards of one partition keep after an epoch."""
    for document in list(handles):
        yield kept_files(fit_id, epoch, ShardHandle.from_json(document))


@dataclass(frozen=True)
class NewestFiles:
    """The files that a shard keeps after the last epoch of which there are some.

    Attributes:
        epoch: Integer.
        result: `ShardResult` with the files.
    """

    epoch: int
    result: ShardResult


def fetch_newest(
    fit_id: str, until: Mapping[int, int], index: int, handles: Iterable[bytes]
) -> Iterator[NewestFiles | MissingShard]:
    """Return the newest files that the shards of one partition keep. Lost ones are left out.

    Args:
        fit_id: String, name of the fit.
        until: Mapping from shard to the last epoch that counts. Without one, any does.
        index: Integer, the partition.
        handles: Iterable of the partition's shard handles, as JSON.
    """
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        state = ShardState.of(fit_id, handle)
        epoch = state.newest(until.get(handle.index))
        if epoch is not None:
            files = files_in(state.folder, epoch)
            yield NewestFiles(epoch, ShardResult(handle.index, handle.num_examples, files=files))
        elif not is_here(handle):
            yield MissingShard.of(handle)


def restore_files(
    fit_id: str,
    epoch: int,
    files: Mapping[int, Mapping[str, np.ndarray]],
    index: int,
    handles: Iterable[bytes],
) -> Iterator[Result]:
    """Write the files of a checkpoint for the shards of one partition; see `write_files`."""
    counted_anew = {
        shard: {
            kind: np.frombuffer(uncounted(data.tobytes()), np.uint8) if kind == PUSHED else data
            for kind, data in kinds.items()
        }
        for shard, kinds in files.items()
    }
    yield from write_files(fit_id, epoch, counted_anew, index, handles)


def write_files(
    fit_id: str,
    epoch: int,
    files: Mapping[int, Mapping[str, np.ndarray]],
    index: int,
    handles: Iterable[bytes],
) -> Iterator[Result]:
    """Write the files that the shards of one partition keep after an epoch.

    Args:
        fit_id: String, name of the fit that goes on.
        epoch: Integer, the last epoch before the ones to train.
        files: Mapping from shard to its files by kind, as `kept_files` returned them. Other shards
            are left out.
        index: Integer, the partition.
        handles: Iterable of the partition's shard handles, as JSON.

    Yields:
        `ShardResult` or `MissingShard`, one per shard.

    Raises:
        KeyError: If a kind of file is unknown.
    """
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        if handle.index not in files:
            continue
        if not is_here(handle):
            yield MissingShard.of(handle)
            continue
        folder = ShardState.of(fit_id, handle).folder
        folder.mkdir(parents=True, exist_ok=True)
        # A task looks for the state. So it is written last, also if this process is killed before.
        for kind, data in sorted(files[handle.index].items(), key=lambda item: item[0] == "state"):
            name = names_of(epoch)[kind]
            partial = folder / f".{name}.{os.getpid()}"
            partial.write_bytes(data.tobytes())
            os.replace(partial, folder / name)
        yield ShardResult(handle.index, handle.num_examples)


def uncounted(content: bytes) -> bytes:
    """Set the number of the exchange in a file of `PushedWeights` to 0.

    The driver of the fit that goes on counts the exchanges from there.
    """
    before, after = io.BytesIO(content), io.BytesIO()
    np.load(before, allow_pickle=False)
    np.save(after, np.array(0), allow_pickle=False)
    return after.getvalue() + before.read()
