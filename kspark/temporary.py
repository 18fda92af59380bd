"""Folders of temporary files, which are removed also if their process is killed.

A process that is killed cannot remove its folders, so the next one removes them. A lock on a file
in each folder tells whether its process lives: the operating system releases the lock however the
process ends. Another process cannot get hold of a folder's lock before its owner, because the file
gets its name when it is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import platform
import shutil
import tempfile
from pathlib import Path

ARRAYS, ROWS = "kspark-arrays-", "kspark-rows-"
SESSION, SHARED, STATES = "kspark-session-", "kspark-shared-", "kspark-states-"
PREFIXES = (ARRAYS, ROWS, SESSION, SHARED, STATES)
"""How the names of folders begin: rows of arrays and of batches, counts of rows; files of a local
session, files that processes share, states of shards."""

MEMORY = "/dev/shm"
"""The directory whose files are in memory. Some systems have none."""

LOCK = ".lock"
"""Name of the locked file, which contains the name of the host."""


class Folder:
    """A folder that nobody else uses, from its creation to `remove` or the end of this process.

    Args:
        prefix: String, `ARRAYS`, `ROWS`, `SESSION`, `SHARED` or `STATES`.
        name: String, how its name ends. Defaults to `None`: a name that no folder has.
        directory: String, where to make it. Defaults to `None`, the directory for temporary files.

    Attributes:
        path: `Path` of the folder.
    """

    def __init__(self, prefix: str, name: str | None = None, directory: str | None = None) -> None:
        directory = directory or tempfile.gettempdir()
        for place in (directory, MEMORY):
            remove_abandoned(place)
        if name is None:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
        else:
            self.path = Path(directory, prefix + name)
            self.path.mkdir(mode=0o700)
        self._lock: int | None = None
        with contextlib.suppress(OSError):  # There are file systems without locks.
            self._lock, file = tempfile.mkstemp(dir=self.path)
            os.write(self._lock, platform.node().encode())
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.rename(file, self.path / LOCK)

    def remove(self) -> None:
        """Remove the folder. May be called more than once."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@functools.cache
def remove_abandoned(directory: str) -> None:
    """Remove the folders of this user's processes on this host that have ended.

    Later calls in the same process do nothing.

    Args:
        directory: String, the directory in which the folders are.
    """
    own: list[str] = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIXES) and is_own_folder(entry):
                own.append(entry.path)
    for path in own:
        remove_if_abandoned(path)


def is_own_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a directory is a folder, not a link to one, that belongs to this user."""
    try:
        return entry.is_dir(follow_symlinks=False) and (
            entry.stat(follow_symlinks=False).st_uid == os.getuid()
        )
    except OSError:  # Its process has just removed it.
        return False


def remove_if_abandoned(path: str) -> None:
    """Remove a folder if nobody holds its lock. A folder without a lock stays."""
    try:
        lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Not all network file systems share locks among hosts.
        if os.read(lock, 1024) == platform.node().encode():
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # Its process lives.
        pass
    finally:
        os.close(lock)
