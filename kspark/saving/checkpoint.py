"""The file of a checkpoint: what a fit needs to go on at an epoch, as JSON and arrays.

A checkpoint is a zip archive with these entries:

```
checkpoint.json    {"format": 1, "content": ...}, with a reference for each array
arrays/0.npy ...   the arrays to which `content` refers
shards/3/state     the files that shard 3 keeps, byte for byte, by their kind
```

Reading a checkpoint runs no code from it: it has no pickles, and the zip archive has a checksum of
each entry.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from kspark.errors import invalid, invalid_type

FORMAT = 1
DOCUMENT = "checkpoint.json"
ARRAY, SCALAR = "$array", "$scalar"
"""Keys of the references to an array, and to a NumPy scalar, which is stored as an array."""

PLAIN = (str, int, float, bool, type(None))

ShardFiles = Mapping[str, np.ndarray]
"""The files that a shard keeps: the bytes of each, as a uint8 vector, by the kind of file."""


def write_checkpoint(
    local: str, content: Mapping[str, Any], shards: Iterable[tuple[int, ShardFiles]]
) -> None:
    """Write a checkpoint to a local file.

    Args:
        local: String, name of the file.
        content: Dictionary of JSON data, which may also contain arrays and NumPy scalars.
        shards: Iterable of pairs of a shard and its files. They are written one by one, so that
            they need not be in memory all at once.

    Raises:
        TypeError: If the content has values of other types.
        OSError: If writing fails.
    """
    arrays: list[np.ndarray] = []
    document = {"format": FORMAT, "content": encoded(content, arrays)}
    with open(local, "wb") as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(DOCUMENT, json.dumps(document))
            for index, array in enumerate(arrays):
                with archive.open(array_name(index), "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
            for shard, files in shards:
                for kind, data in files.items():
                    with archive.open(f"shards/{shard}/{kind}", "w", force_zip64=True) as entry:
                        entry.write(data.data)
        stream.flush()
        os.fsync(stream.fileno())


class CheckpointReader:
    """An open checkpoint.

    Args:
        archive: Open `zipfile.ZipFile`.

    Attributes:
        content: Dictionary, as given to `write_checkpoint`, with lists in place of tuples.

    Raises:
        ValueError: If the archive is not a checkpoint of this format.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        document = json.loads(archive.read(DOCUMENT))
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"It is not of format {FORMAT}.")
        self.content: dict[str, Any] = self._decoded(document["content"])

    def shard(self, shard: int) -> dict[str, np.ndarray]:
        """Return the files of a shard; an empty dictionary if it had none."""
        prefix = f"shards/{shard}/"
        return {
            name.removeprefix(prefix): np.frombuffer(self._archive.read(name), np.uint8)
            for name in self._archive.namelist()
            if name.startswith(prefix)
        }

    def _decoded(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._decoded(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {ARRAY}:
            return self._array(value[ARRAY])
        if value.keys() == {SCALAR}:
            return self._array(value[SCALAR])[()]
        return {name: self._decoded(item) for name, item in value.items()}

    def _array(self, index: Any) -> np.ndarray:
        with self._archive.open(array_name(int(index))) as entry:
            array: np.ndarray = np.lib.format.read_array(entry, allow_pickle=False)
        return array


@contextmanager
def open_checkpoint(local: str, path: str) -> Iterator[CheckpointReader]:
    """Open a checkpoint for the time of the block.

    Args:
        local: String, name of the local file.
        path: String, name of the file for errors.

    Yields:
        `CheckpointReader`.

    Raises:
        ValueError: If the file is damaged, is no checkpoint, or a later kspark wrote it.
    """
    try:
        archive = zipfile.ZipFile(local)
        if archive.testzip() is not None:
            raise zipfile.BadZipFile("A checksum does not match.")
        reader = CheckpointReader(archive)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        rule = (
            f"an intact checkpoint of this version of kspark ({error}). Delete this file to go on "
            "from the one before"
        )
        raise invalid("checkpoint", rule, path) from error
    with archive:
        yield reader


def encoded(value: Any, arrays: list[np.ndarray]) -> Any:
    """Turn a value into JSON data, and move its arrays to `arrays`.

    Raises:
        TypeError: If the value is neither JSON data nor an array of numbers or text.
    """
    if isinstance(value, np.ndarray | np.generic):
        kept = np.asarray(value)
        if kept.dtype.kind == "V":  # NumPy knows bfloat16 as bytes only, see `widened`.
            kept = kept.astype(np.float32)
        if kept.dtype.kind != "O":
            arrays.append(kept)
            return {ARRAY if isinstance(value, np.ndarray) else SCALAR: len(arrays) - 1}
    elif isinstance(value, PLAIN):
        return value
    elif isinstance(value, list | tuple):
        return [encoded(item, arrays) for item in value]
    elif isinstance(value, Mapping) and not value.keys() & {ARRAY, SCALAR}:
        if all(isinstance(name, str) for name in value):
            return {name: encoded(item, arrays) for name, item in value.items()}
    rule = "numbers, text or arrays, in lists and dictionaries with text as keys"
    raise invalid_type("the content of a checkpoint", rule, value)


def array_name(index: int) -> str:
    """Return the name of an array's entry."""
    return f"arrays/{index}.npy"
