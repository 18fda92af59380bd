"""Process arrays that arrive in any order in the order of their shards."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import IO

import numpy as np

from kspark.shards.files import as_bytes
from kspark.shards.removal import local_folders

Place = tuple[int, np.dtype, tuple[int, ...]]
"""Location of an array in the file: position, dtype, shape."""


class InOrder:
    """Passes arrays on in the order of their shards, so that sums of them have the same bytes.

    Arrays that arrive early are stored in a file, so that the memory contains those of one shard
    at a time. The file is in Spark's local directory and has no name, so that it disappears
    however the process ends.

    ```python
    with InOrder([3, 5], sums.add) as vectors:
        vectors.add(5, [b])  # stored
        vectors.add(3, [a])  # both are passed on
    ```

    At the end of the block, stored arrays are passed on even if an earlier shard has not arrived.

    Args:
        shards: Iterable of integers, the expected shards.
        hand_on: Function of a shard and its list of arrays, which it must not change.
    """

    def __init__(
        self, shards: Iterable[int], hand_on: Callable[[int, list[np.ndarray]], None]
    ) -> None:
        self._awaited = deque(sorted(shards))
        self._hand_on = hand_on
        self._waiting: dict[int, list[Place]] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> InOrder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            for shard in sorted(self._waiting):
                self._hand_on(shard, self._fetched(shard))
        if self._file is not None:
            self._file.close()

    def add(self, shard: int, arrays: Sequence[np.ndarray]) -> None:
        """Add the arrays of a shard, and pass on all arrays whose turn it is."""
        if not self._awaited or self._awaited[0] != shard:
            self._waiting[shard] = [self._stored(array) for array in arrays]
            return
        self._awaited.popleft()
        self._hand_on(shard, list(arrays))
        while self._awaited and self._awaited[0] in self._waiting:
            following = self._awaited.popleft()
            self._hand_on(following, self._fetched(following))

    def _stored(self, array: np.ndarray) -> Place:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=local_folders()[0])  # noqa: SIM115 (`__exit__`)
        position = self._file.seek(0, 2)
        self._file.write(as_bytes(np.ascontiguousarray(array)))
        return position, array.dtype, array.shape

    def _fetched(self, shard: int) -> list[np.ndarray]:
        return [self._read(*place) for place in self._waiting.pop(shard)]

    def _read(self, position: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(shape, dtype)
        if self._file is not None and array.nbytes:
            self._file.seek(position)
            array = np.frombuffer(self._file.read(array.nbytes), dtype).reshape(shape)
        return array
