"""Hogwild on one host: the global weights as a file that all replicas map.

Layout: 32 random bytes that prove a replica found *this* fit's file and not
another host's, two int64 per shard (pushes applied, and which attempt may push), then
the vector. Adds are
plain in-place adds without any lock; a lost or torn update is hogwild's
bargain (Niu et al. 2011, "Hogwild!: A Lock-Free Approach to Parallelizing
Stochastic Gradient Descent").
"""

from __future__ import annotations

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
    """The mapped file. Made by the driver, opened by replicas of its host.

    Attributes:
        path: String, the file.
        mark: Bytes, what the file begins with.
        pushes: int64 array, one counter per shard in the order of the shards.
        owners: int64 array, likewise: the attempt that works on the shard.
        vector: The weights, `spec.size` elements.
    """

    def __init__(self, path: str, mark: bytes, spec: WeightSpec, num_shards: int) -> None:
        self.path = path
        self.mark = mark
        counters = num_shards * COUNTER.itemsize
        cut = MARK_BYTES + 2 * counters
        size = cut + spec.nbytes
        raw = np.asarray(np.memmap(path, np.uint8, "r+", shape=(size,)))
        self.pushes = raw[MARK_BYTES : MARK_BYTES + counters].view(COUNTER)
        self.owners = raw[MARK_BYTES + counters : cut].view(COUNTER)
        self.vector = raw[cut:].view(spec.dtype)

    @classmethod
    def create(cls, weights: np.ndarray, spec: WeightSpec, num_shards: int) -> SharedWeights:
        """Make the file, holding a copy of `weights`. Delete it with `unlink`.

        Raises:
            IncompatibleDeltaError: If the weights are not of this spec.
            OSError: If there is no room for it.
        """
        spec.check(weights, "weights vector")
        mark = secrets.token_bytes(MARK_BYTES)
        counters = bytes(2 * num_shards * COUNTER.itemsize)
        parts = (mark, counters, np.ascontiguousarray(weights).data.cast("B"))
        try:
            path = write_file(MEMORY, parts)
        except OSError:  # not on this system, or too small, as in many containers
            path = write_file(tempfile.gettempdir(), parts)
        return cls(path, mark, spec, num_shards)

    @classmethod
    def find(
        cls, path: str, mark: bytes, spec: WeightSpec, num_shards: int
    ) -> SharedWeights | None:
        """Open the driver's file if this process can see that very file."""
        try:
            with open(path, "rb") as stream:
                if stream.read(MARK_BYTES) != mark:
                    return None
            return cls(path, mark, spec, num_shards)
        except OSError:
            return None

    def unlink(self) -> None:
        """Remove the file; maps that are open stay valid."""
        if os.path.exists(self.path):
            os.unlink(self.path)


def write_file(folder: str, parts: Iterable[bytes | memoryview]) -> str:
    """Write a new file that only this user can read, whole or not at all, and name it."""
    handle, path = tempfile.mkstemp(prefix="kspark-", suffix=".weights", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            for part in parts:
                stream.write(part)
    except BaseException:
        os.unlink(path)
        raise
    return path
