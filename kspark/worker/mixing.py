"""Mix the training rows between shards, in the two stages of one Spark job.

```
shards        read in random order, and cut into blocks of rows, one for each new shard
              a shuffle of blocks, sorted by where they come from
new shards    written to disk, part by part, each in random order
```

Without Keras, as all work on rows that trains nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from typing import Any

from kspark.adapters.base import CHUNK_BYTES
from kspark.cluster.failures import failure_json
from kspark.plan import Mixing
from kspark.shards import (
    Block,
    Chunk,
    Shard,
    ShardHandle,
    SpoolMissingError,
    is_here,
    joined,
    spool,
)
from kspark.worker.tasks import MissingShard, check_unchanged, read_to_end

BLOCK_BYTES = 64 << 10
"""Approximate size of the smallest blocks, if there are many new shards."""

FIRST = -1
"""In place of a part: sorts what kept a shard from being read before all blocks."""

Key = tuple[int, int, int, int]
"""The new shard, its part, the shard that the rows come from, and the number of the block."""


@dataclass(frozen=True)
class MixingTask:
    """What the tasks that mix rows need.

    Attributes:
        run_id: String, see `kspark.shards.spool`.
        mixing: `Mixing`.
        unneeded: Tuple of folders, the shards of the period before, or of an earlier try at this
            one, which are deleted first on the hosts that have them. No two shards have equal
            folders.
        is_loose: Boolean, whether features may have different shapes. Defaults to `False`.
    """

    run_id: str
    mixing: Mixing
    unneeded: tuple[str, ...] = ()
    is_loose: bool = False

    def make_room(self) -> None:
        """Delete the folders on this host that nobody needs any more."""
        for folder in self.unneeded:
            shutil.rmtree(folder, ignore_errors=True)


def cut_shards(
    task: MixingTask, index: int, handles: Iterable[bytes]
) -> Iterator[tuple[Key, Block | bytes]]:
    """Cut the shards of one partition into blocks.

    Yields:
        Pairs of a key and a block. If a shard cannot be read, every new shard gets the reason, a
        `MissingShard` or a `Failure` as JSON.
    """
    task.make_room()
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        try:
            yield from blocks_of(task.mixing, handle)
        except SpoolMissingError:
            yield from for_all(task.mixing, handle.index, missing_json(handle))
        except ValueError as error:
            yield from for_all(task.mixing, handle.index, failure_json(handle.index, error))


def missing_json(handle: ShardHandle) -> bytes:
    """Return the `MissingShard` of a handle as JSON."""
    return json.dumps({"missing": asdict(MissingShard.of(handle))}).encode()


def for_all(mixing: Mixing, shard: int, reason: bytes) -> Iterator[tuple[Key, bytes]]:
    """Yield the reason why a shard cannot be read, for every new shard."""
    for target in range(len(mixing.num_train)):
        yield (target, FIRST, shard, 0), reason


def blocks_of(mixing: Mixing, handle: ShardHandle) -> Iterator[tuple[Key, Block]]:
    """Read the training rows of a shard in random order, and cut them into blocks.

    Raises:
        SpoolMissingError: If the files are not on this host.
        ValueError: If the shard has fewer rows than at the beginning of the fit.
    """
    count = mixing.num_train[handle.index]
    check_unchanged(handle, count)
    shard = Shard.open(handle)
    nbytes = max(CHUNK_BYTES, mixing.places * BLOCK_BYTES)
    step, done, number = max(1, int(nbytes / max(shard.row_bytes, 1e-9))), 0, 0
    for window in shard.windows(1, stop=count, rng=mixing.reading(handle.index)):
        rows = Chunk(window.x, window.y, window.sample_weight)
        for start in range(0, window.num_examples, step):
            dealt = window.numbers[start : start + step]
            for target, part, chosen in mixing.dealt(handle.index, done, len(dealt)):
                yield (target, part, handle.index, number), rows.taken(dealt[chosen]).block
            done, number = done + len(dealt), number + 1


def spool_blocks(
    task: MixingTask, index: int, blocks: Iterator[tuple[Key, Block | bytes]]
) -> Iterator[bytes]:
    """Write the blocks of one new shard, which are sorted by their keys, to local disk.

    Yields:
        One JSON document: a `ShardHandle`, or the reason why there is none.
    """
    task.make_room()
    first = next(blocks, None)
    if first is not None and isinstance(first[1], bytes):
        read_to_end(blocks)
        yield first[1]
        return
    found = blocks if first is None else chain([first], blocks)
    parts = parts_of(task.mixing, index, found)
    yield spool(parts, index, task.run_id, is_loose=task.is_loose).to_json()


def parts_of(mixing: Mixing, index: int, blocks: Iterator[tuple[Key, Any]]) -> Iterator[Chunk]:
    """Yield the parts of a new shard, each with its rows in random order."""
    for part, group in groupby(blocks, key=lambda block: block[0][1]):
        rows = joined([Chunk.of_block(block) for _, block in group])
        yield rows.taken(mixing.writing(index, part).permutation(rows.num_examples))


def delete_shards(index: int, handles: Iterable[bytes]) -> Iterator[int]:
    """Delete the rows of the shards of one partition, if they are on this host.

    Yields:
        The shards whose rows were deleted.
    """
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        if is_here(handle):
            shutil.rmtree(handle.path, ignore_errors=True)
            yield handle.index
