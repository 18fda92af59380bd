"""Give a shard a second name on the same disk, without a copy of its rows."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import replace

from kspark.shards.handle import ShardHandle
from kspark.shards.marks import mark_in
from kspark.shards.writing import SpoolMissingError, shard_name, spool_directory


def link(handle: ShardHandle, run_id: str) -> ShardHandle:
    """Link the files of a shard in the folder of another run id.

    Each name of a file can be deleted without the other one. File systems without links get
    copies.

    Args:
        handle: `ShardHandle` with the arrays to link.
        run_id: String, as for `spool`.

    Returns:
        `ShardHandle` of the links.

    Raises:
        SpoolMissingError: If a file is not on this host.
    """
    folder = spool_directory(run_id, handle.index)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    mark = mark_in(folder, spool_directory(run_id))
    path = os.path.join(folder, shard_name(handle.index))
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
        inside = os.path.join(partial, "shard")
        os.mkdir(inside, mode=0o700)
        for file in (name for stored in handle.arrays for name in stored.files):
            link_file(os.path.join(handle.path, file), os.path.join(inside, file))
        os.replace(inside, path)
    nbytes = sum(stored.nbytes for stored in handle.arrays)
    return replace(handle, path=path, host=platform.node(), nbytes=nbytes, mark=mark)


def link_file(source: str, target: str) -> None:
    """Link a file, or copy it where that is not possible.

    Raises:
        SpoolMissingError: If it does not exist.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if not os.path.exists(source):
            raise SpoolMissingError(f"The file {source} of a shard is gone: {error}") from error
        # There are file systems without links, and links end at a disk's border.
        shutil.copyfile(source, target)
