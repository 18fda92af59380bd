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

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterable

import numpy as np

from kspark.weights import WeightSpec

MEMORY = "/dev/shm"
MARK_BYTES = 32
COUNTER = np.dtype("int64")


class SharedWeights:
    """The mapped file, created by the driver and opened by replicas on its host.

    Attributes:
        path: String, path of the file.
        mark: Bytes, the first bytes of the file.
        pushes: int64 array, number of applied pushes per shard, in the order of the shards.
        owners: int64 array, the attempt that trains each shard, in the same order.
        vector: Vector of `spec.size` elements, the weights.
    """

    def __init__(self, path: str, mark: bytes, spec: WeightSpec, num_shards: int) -> None:
        self.path = path
        self.mark = mark
        counters = num_shards * COUNTER.itemsize
        cut = MARK_BYTES + 2 * counters
        size = cut + spec.nbytes
        raw = mapped(path, size)
        self.pushes = raw[MARK_BYTES : MARK_BYTES + counters].view(COUNTER)
        self.owners = raw[MARK_BYTES + counters : cut].view(COUNTER)
        self.vector = raw[cut:].view(spec.dtype)

    @classmethod
    def create(cls, weights: np.ndarray, spec: WeightSpec, num_shards: int) -> SharedWeights:
        """Create the file with a copy of `weights`. Delete it with `unlink`.

        Raises:
            IncompatibleDeltaError: If the weights do not fit the spec.
            OSError: If there is not enough space for the file.
        """
        spec.check(weights, "weights vector")
        mark = secrets.token_bytes(MARK_BYTES)
        counters = bytes(2 * num_shards * COUNTER.itemsize)
        path = create_file((mark, counters, np.ascontiguousarray(weights).data.cast("B")))
        return cls(path, mark, spec, num_shards)

    @classmethod
    def find(
        cls, path: str, mark: bytes, spec: WeightSpec, num_shards: int
    ) -> SharedWeights | None:
        """Open the driver's file. Returns `None` if this host does not have that file."""
        found = is_marked(path, mark)
        return cls(path, mark, spec, num_shards) if found else None

    def unlink(self) -> None:
        """Delete the file. Open maps stay valid."""
        delete_file(self.path)


def create_file(parts: Iterable[bytes | memoryview]) -> str:
    """Write a new file, in memory if possible. Returns its path.

    Raises:
        OSError: If there is not enough space.
    """
    written = list(parts)
    try:
        return write_file(MEMORY, written)
    except OSError:  # `MEMORY` does not exist, or is too small, as in many containers.
        return write_file(tempfile.gettempdir(), written)


def write_file(folder: str, parts: Iterable[bytes | memoryview]) -> str:
    """Write a new file that only this user can read. An incomplete file is deleted.

    Returns:
        String, path of the file.
    """
    handle, path = tempfile.mkstemp(prefix="kspark-", suffix=".weights", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            for part in parts:
                stream.write(part)
    except BaseException:
        os.unlink(path)
        raise
    return path


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


def delete_file(path: str) -> None:
    """Delete a file, if it is there. Open maps stay valid."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
