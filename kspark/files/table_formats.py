"""Refuse folders of table formats, whose logs say which of their Parquet files and rows count."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from pyarrow.fs import FileSelector, FileType

from kspark.files.paths import Resolved

LOGS = {"_delta_log": "delta", ".hoodie": "hudi", "metadata": "iceberg"}
"""Folders in the folder of a table, with the name of their format for Spark."""


def check_plain(places: Iterable[Resolved]) -> None:
    """Check that no place is a table of another format than Parquet, or a part of one.

    Args:
        places: Iterable of `Resolved`, files and folders.

    Raises:
        ValueError: If one is.
    """
    for root in dict.fromkeys(root for place in places for root in possible_roots(place)):
        if found := table_format(root):
            raise ValueError(
                f"{str(root)!r} must have plain Parquet files. Received: a table of the format "
                f"{found!r}, whose log says which rows count. Give the DataFrame of "
                f"`spark.read.format({found!r}).load(...)` in place of the path"
            )


def possible_roots(place: Resolved) -> Iterator[Resolved]:
    """Yield the folders that would be the table if a place were a part of one."""
    path = place.path
    yield place
    while True:
        path, name = posixpath.split(path)
        if not path or not name:
            return
        yield Resolved(place.root, path)
        own = posixpath.basename(path)
        if "=" not in own and own != "data":  # Iceberg's files are in the folder `data`.
            return


def table_format(root: Resolved) -> str | None:
    """Return the format of the table in a folder; `None` if its files are plain."""
    infos = root.system.get_file_info([posixpath.join(root.path, name) for name in LOGS])
    for info, found in zip(infos, LOGS.values(), strict=True):
        if info.type == FileType.Directory and (
            found != "iceberg" or has_metadata(root, info.path)
        ):
            return found
    return None


def has_metadata(root: Resolved, folder: str) -> bool:
    """Whether a folder has the files that describe a table of Iceberg."""
    infos = root.system.get_file_info(FileSelector(folder))
    return any(info.base_name.endswith(".metadata.json") for info in infos)
