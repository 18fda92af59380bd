"""Exact steps on one host: a file in which all replicas see each other's gradients.

After the mark of every shared file (see `shared_memory`), the file contains one int64 per shard,
the number of exchanges that the shard has reached; and two sides of one int64 and one gradient per
shard, its examples and its mean gradient over them.

The exchanges of a fit are numbered, and exchange `n` uses side `n % 2`. A replica writes its
gradient, then says that it has reached the exchange, waits until all others have, and computes the
mean of all gradients. All compute the same bytes, so they stay equal, as if the driver had computed
the mean. Exchange `n + 2` overwrites the gradients of exchange `n`, but begins only after all
replicas have reached `n + 1`, and so have computed the mean of `n`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import numpy as np

from kspark import temporary
from kspark.live.shared_memory import COUNTER, MARK_BYTES, SharedFile, mapped, zeros
from kspark.weights import WeightSpec, mean_in_order

SIDES = 2

MAX_BYTES = 256 << 20
"""Size of the largest file: it lies in memory, beside the replicas."""

YIELDS = 2000
"""How often a waiting replica only lets others run, which takes some milliseconds."""

PAUSE_SECONDS = 0.0001
"""How long it sleeps between two looks after that."""

ASK_SECONDS = 0.1
"""How often a waiting replica asks the driver whether it is to wait any longer."""

_fence_lock = threading.Lock()


class SharedGradients(SharedFile):
    """The gradients of all replicas.

    Attributes:
        path: String, path of the file.
        mark: Bytes, the first bytes of the file.
        reached: int64 array, number of exchanges that each shard has reached, in the order of the
            shards.
        counts: int64 array of shape `(2, shards)`, the examples of each gradient.
        vectors: Array of shape `(2, shards, trainable_size)`, the gradients.
    """

    def __init__(self, path: str, mark: bytes, spec: WeightSpec, num_shards: int) -> None:
        super().__init__(path, mark, spec, num_shards)
        counters = num_shards * COUNTER.itemsize
        ends = np.cumsum([MARK_BYTES, counters, SIDES * counters, vector_bytes(spec, num_shards)])
        raw = mapped(path, int(ends[-1]))
        self.reached = raw[ends[0] : ends[1]].view(COUNTER)
        self.counts = raw[ends[1] : ends[2]].view(COUNTER).reshape(SIDES, num_shards)
        vectors = raw[ends[2] : ends[3]].view(spec.dtype)
        self.vectors = vectors.reshape(SIDES, num_shards, spec.trainable_size)

    @classmethod
    def create(cls, spec: WeightSpec, num_shards: int) -> SharedGradients:
        """Create the file, in memory. Delete it with `unlink`.

        Raises:
            OSError: If there is no such memory, or not enough of it. Connections are faster than a
                file on disk.
        """
        counters = bytes((1 + SIDES) * num_shards * COUNTER.itemsize)
        parts = (counters, *zeros(vector_bytes(spec, num_shards)))
        return cls._create(parts, spec, num_shards, (temporary.MEMORY,))

    def reached_by(self, slot: int) -> int:
        """Return the number of exchanges that the shard at a position has reached."""
        return int(self.reached[slot])

    def exchange(
        self,
        slot: int,
        number: int,
        gradient: np.ndarray | None,
        num_examples: int,
        out: np.ndarray,
        ask: Callable[[], None],
        *,
        may_end: bool = False,
    ) -> float | None:
        """Bring a gradient, and write the mean of all shards' gradients into `out`.

        Args:
            slot: Integer, position of the shard.
            number: Integer, number of the exchange since the fit began.
            gradient: Vector of `trainable_size` elements, or `None` without examples.
            num_examples: Integer, number of examples of `gradient`.
            out: Vector of `trainable_size` elements to write to. It may be `gradient`.
            ask: Function without arguments, which is called a few times per second. It raises an
                error to end the wait.
            may_end: Boolean, whether it is no error if no shard has examples. Defaults to `False`.

        Returns:
            Float, the seconds of waiting for others; `None` if no shard has examples.

        Raises:
            AggregationError: If no shard has examples.
        """
        side = number % SIDES
        self.counts[side, slot] = num_examples
        if gradient is not None:
            self.vectors[side, slot] = gradient
        fence()
        self.reached[slot] = number + 1
        waited = self._wait(number, ask)
        fence()
        if may_end and not self.counts[side].any():
            return None
        mean_in_order(zip(self.vectors[side], self.counts[side].tolist(), strict=True), out)
        return waited

    def _wait(self, number: int, ask: Callable[[], None]) -> float:
        """Wait until all shards have reached an exchange. Returns the seconds."""
        looks, began = 0, time.perf_counter()
        asked = began
        while int(self.reached.min()) <= number:
            looks += 1
            if looks < YIELDS:
                os.sched_yield()
                continue
            time.sleep(PAUSE_SECONDS)
            if time.perf_counter() - asked >= ASK_SECONDS:
                ask()
                asked = time.perf_counter()
        return time.perf_counter() - began


def vector_bytes(spec: WeightSpec, num_shards: int) -> int:
    """Return the size of the gradients in the file."""
    return SIDES * num_shards * spec.trainable_size * spec.dtype.itemsize


def fence() -> None:
    """Keep this thread's accesses to memory before and after the call in this order.

    Processors other than x86 may let others see a number before the gradient that was written
    earlier. Acquiring and releasing a lock, twice, prevents that.
    """
    for _ in range(2):
        with _fence_lock:
            pass
