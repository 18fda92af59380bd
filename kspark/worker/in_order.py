"""Arrays that come in any order, handed on in that of their shards."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import IO

import numpy as np

from kspark.shards.files import as_bytes
from kspark.shards.writing import local_folders

Place = tuple[int, np.dtype, tuple[int, ...]]
"""Where an array waits: position in the file, dtype, shape."""


class InOrder:
    """Hands arrays on in the order of their shards, so that sums of them are the same bytes.

    Arrays of a shard that comes before its turn wait in a file: the process holds those of
    one shard at a time. The file is in Spark's local directory and has no name, so that
    nothing is left of it, however the process ends.

    ```python
    with InOrder([3, 5], sums.add) as vectors:
        vectors.add(5, [b])  # waits
        vectors.add(3, [a])  # both are added
    ```

    At the end of the block, those that wait for a shard that has not come are handed on.

    Args:
        shards: Integers, whose arrays are awaited.
        hand_on: Called with a shard and its list of arrays, which are not to be changed.
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
        """Take in the arrays of a shard."""
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
