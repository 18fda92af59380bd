"""Tell on which executor a shard was written, by a mark beside its files.

The folder of a run id has a small file with a random word, the mark, and the handles of the shards
in it carry the word. A process that reads the same word at the same place has the shard's disk,
whatever the names of the hosts are: hosts may have equal names, and two executors of one host may
see each other's files.
"""

from __future__ import annotations

import contextlib
import os
import secrets

from kspark.shards.handle import ShardHandle

MARK = ".mark"
"""Name of the file."""


def mark_in(folder: str, first: str | None = None) -> str:
    """Return the mark of a folder, which gets one if it has none.

    Args:
        folder: String, a directory that exists.
        first: String, the directory of the same run id that lends its mark, so that all local
            directories of an executor have the same one. Defaults to `None`: the mark is random.
    """
    if found := read_mark(folder):
        return found
    mark = secrets.token_hex(8)
    if first is not None and first != folder:
        os.makedirs(first, mode=0o700, exist_ok=True)
        mark = mark_in(first)
    partial = os.path.join(folder, f"{MARK}-{secrets.token_hex(8)}")
    with open(partial, "w", encoding="ascii") as file:
        file.write(mark)
    try:
        with contextlib.suppress(FileExistsError):  # Another task was faster.
            os.link(partial, os.path.join(folder, MARK))
    except OSError:  # There are file systems without links.
        os.replace(partial, os.path.join(folder, MARK))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    return read_mark(folder)


def read_mark(folder: str) -> str:
    """Return the mark of a folder; an empty string if it has none, or is not on this host."""
    try:
        with open(os.path.join(folder, MARK), encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def is_here(handle: ShardHandle) -> bool:
    """Whether this process sees the disk on which a shard was written."""
    mark = read_mark(os.path.dirname(handle.path))
    return bool(mark) and mark == handle.mark
