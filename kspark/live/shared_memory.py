"""Files that the replicas on the driver's host map, and the one with the weights of hogwild mode.

Each file begins with 32 random bytes, by which a replica checks that it has found this fit's file
and not one of another host. In hogwild mode, two int64 per shard follow, the number of applied
pushes and the attempt that may push, and then the vector of weights. Replicas add to the weights in
place without a lock, and accept that updates may be lost or torn.

Reference:
    Niu et al., 2011, "Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient
    Descent".
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from kspark import temporary
from kspark.errors import AggregationError
from kspark.weights import WeightSpec

logger = logging.getLogger("kspark")

MARK_BYTES = 32
COUNTER = np.dtype("int64")

FILE = "mapped"
"""Name of the file in its folder."""

PIECE = bytes(1 << 20)
"""Zeros, of which a file begins with many copies."""

Part = bytes | memoryview
Shared = TypeVar("Shared", bound="SharedFile")


class SharedFile:
    """A mapped file, created by the driver and opened by replicas on its host.

    A subclass maps what it needs in `__init__`, which has the arguments of this one.

    Args:
        path: String, path of the file.
        mark: Bytes, the first bytes of the file.
        spec: `WeightSpec` of the model.
        num_shards: Integer, number of shards with examples.
    """

    _folder: temporary.Folder | None = None

    def __init__(self, path: str, mark: bytes, spec: WeightSpec, num_shards: int) -> None:
        self.path = path
        self.mark = mark

    @classmethod
    def _create(
        cls: type[Shared],
        parts: Sequence[Part],
        spec: WeightSpec,
        num_shards: int,
        directories: Sequence[str],
    ) -> Shared:
        """Create the file, with a new mark before the parts, in the first directory with room.

        Raises:
            OSError: If no directory has enough space for the file, or it cannot be mapped.
        """
        mark = secrets.token_bytes(MARK_BYTES)
        folder = written((mark, *parts), directories)
        try:
            made = cls(str(folder.path / FILE), mark, spec, num_shards)
        except BaseException:
            folder.remove()
            raise
        made._folder = folder
        return made

    @classmethod
    def find(
        cls: type[Shared], path: str, mark: bytes, spec: WeightSpec, num_shards: int
    ) -> Shared | None:
        """Open the driver's file. Returns `None` if this host does not have that file."""
        return cls(path, mark, spec, num_shards) if is_marked(path, mark) else None

    def unlink(self) -> None:
        """Delete the file, on the driver. Open maps stay valid. May be called more than once."""
        if self._folder is not None:
            self._folder.remove()


class SharedWeights(SharedFile):
    """The weights of hogwild mode.

    Attributes:
        path: String, path of the file.
        mark: Bytes, the first bytes of the file.
        pushes: int64 array, number of applied pushes per shard, in the order of the shards.
        owners: int64 array, the attempt that trains each shard, in the same order.
        vector: Vector of `spec.size` elements, the weights.
    """

    def __init__(self, path: str, mark: bytes, spec: WeightSpec, num_shards: int) -> None:
        super().__init__(path, mark, spec, num_shards)
        counters = num_shards * COUNTER.itemsize
        cut = MARK_BYTES + 2 * counters
        raw = mapped(path, cut + spec.nbytes)
        self.pushes = raw[MARK_BYTES : MARK_BYTES + counters].view(COUNTER)
        self.owners = raw[MARK_BYTES + counters : cut].view(COUNTER)
        self.vector = raw[cut:].view(spec.dtype)

    @classmethod
    def create(cls, weights: np.ndarray, spec: WeightSpec, num_shards: int) -> SharedWeights:
        """Create the file with a copy of `weights`. Delete it with `unlink`.

        It is on disk if there is no room in memory, as in many containers.

        Raises:
            IncompatibleDeltaError: If the weights do not fit the spec.
            OSError: If there is not enough space for the file.
        """
        spec.check(weights, "weights vector")
        parts = (
            bytes(2 * num_shards * COUNTER.itemsize),
            np.ascontiguousarray(weights).data.cast("B"),
        )
        return cls._create(parts, spec, num_shards, (temporary.MEMORY, tempfile.gettempdir()))

    def admit(self, slot: int, attempt: int) -> int:
        """Let this attempt push from now on, and no other one. Returns the pushes so far."""
        self.owners[slot] = attempt
        return int(self.pushes[slot])

    def add(self, slot: int, attempt: int, number: int, delta: np.ndarray) -> None:
        """Count a push and add its delta.

        It is counted first. A process that is killed in between loses the rest of the delta,
        instead of leaving it to the next attempt to add it once more.

        Args:
            slot: Integer, the place of the shard.
            attempt: Integer, the attempt that pushes.
            number: Integer, number of this push of the shard, counted from 1.
            delta: Vector of `spec.size` elements.

        Raises:
            AggregationError: If another attempt was admitted.
        """
        self._check_owner(slot, attempt)  # Before it counts: the other one counts, too.
        self.pushes[slot] = number
        self._check_owner(slot, attempt)  # After it: the other one has counted this push, or not.
        np.add(self.vector, delta, out=self.vector)

    def _check_owner(self, slot: int, attempt: int) -> None:
        if self.owners[slot] != attempt:
            raise AggregationError("A newer attempt trains this shard now.")


def zeros(count: int) -> list[Part]:
    """Return so many bytes of zeros in pieces, most of which are the same object."""
    pieces, rest = divmod(count, len(PIECE))
    return [*[PIECE] * pieces, bytes(rest)]


def written(parts: Sequence[Part], directories: Sequence[str]) -> temporary.Folder:
    """Write a new file that only this user can read, in the first directory with enough space.

    Returns:
        `Folder` that contains the file.

    Raises:
        OSError: If the last one has not enough space either.
    """
    *others, last = directories
    for directory in others:
        try:
            return written_to(directory, parts)
        except OSError as error:
            logger.info(
                "The memory that replicas share is a file on disk, because %s cannot have it: %s",
                directory,
                error,
            )
    return written_to(last, parts)


def written_to(directory: str, parts: Sequence[Part]) -> temporary.Folder:
    """Write a new file in a folder of its own. An incomplete file is deleted."""
    folder = temporary.Folder(temporary.SHARED, directory=directory)
    try:
        with open(folder.path / FILE, "xb", opener=private) as stream:
            for part in parts:
                stream.write(part)
    except BaseException:
        folder.remove()
        raise
    return folder


def private(path: str, flags: int) -> int:
    """Open a file that only this user can read."""
    return os.open(path, flags, 0o600)


def is_marked(path: str, mark: bytes) -> bool:
    """Whether this host has a file at `path` that begins with `mark`."""
    try:
        with open(path, "rb") as stream:
            return stream.read(MARK_BYTES) == mark
    except OSError:
        return False


def mapped(path: str, size: int) -> np.ndarray:
    """Map the first `size` bytes of a file. Returns a uint8 array, which writes to the file."""
    return np.asarray(np.memmap(path, np.uint8, "r+", shape=(size,)))
