"""Find data files as Spark does: patterns, folders of partitions, and files that are hidden."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from kspark.files.paths import Resolved, resolve, without_secrets
from kspark.files.table_formats import check_plain

MAGIC = re.compile(r"[*?\[{]")
BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class DataFile:
    """A file with rows.

    Attributes:
        place: `Resolved`, its path.
        values: Dictionary from partition column to the value that the file's folders give it: at
            first the text of the folder's name, then a value of the column's type.
        rows: Integer, number of its rows; 0 as long as its footer was not read.
        version: What changes if the file is replaced, see `version_of`; `None` if it is unknown.
    """

    place: Resolved
    values: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    version: tuple[int, int | None] | None = None


def version_of(place: Resolved, info: FileInfo) -> tuple[int, int | None]:
    """Return the size of a file, and the time of its last change.

    Object stores list fractions of seconds that they do not give for a single file.
    """
    changed = info.mtime_ns
    return info.size, changed if changed is None or not place.root else changed // 10**9


def list_files(paths: Sequence[str]) -> list[DataFile]:
    """Find the files of paths, in the order of the paths, and sorted by name in each folder.

    Args:
        paths: Sequence of strings: files, folders, or patterns with `*`, `?`, `[]` and `{}`.

    Raises:
        FileNotFoundError: If a path does not exist, or no file matches it.
        ValueError: If the folders below a path are not partitions, or a log says which of the
            rows count.
        UnreachableError: If the file system of a path is unknown.
    """
    found: list[DataFile] = []
    for path in paths:
        named = matches(resolve(path))
        check_plain(place for place, _ in named)
        here = [file for one in named for file in below(one)]
        if not here:
            shown = without_secrets(path)
            raise FileNotFoundError(errno.ENOENT, "There are no Parquet files", shown)
        found += here
    check_keys(found)
    return found


def matches(place: Resolved) -> list[tuple[Resolved, FileInfo]]:
    """Return what a path or pattern names, sorted by path."""
    literal = place.system.get_file_info(place.path)
    if literal.type != FileType.NotFound:
        return [(place, literal)]
    patterns = alternatives(place.path) if MAGIC.search(place.path) else []
    names = sorted({name for one in patterns for name in expanded(place.system, one)})
    if not names:
        shown = place.shown
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shown)
    infos = place.system.get_file_info(names)
    return [(Resolved(place.root, info.path), info) for info in infos]


def alternatives(pattern: str) -> list[str]:
    """Return the patterns that a pattern with `{a,b}` stands for."""
    braces = BRACES.search(pattern)
    if braces is None:
        return [pattern]
    start, stop = braces.span()
    made = (pattern[:start] + part + pattern[stop:] for part in braces[1].split(","))
    return [found for one in made for found in alternatives(one)]


def expanded(system: FileSystem, pattern: str) -> Iterator[str]:
    """Yield the paths that match a pattern. `*` matches within one name."""
    head, *rest = MAGIC.split(pattern, maxsplit=1)
    if not rest:
        if system.get_file_info(pattern).type != FileType.NotFound:
            yield pattern
        return
    base = head.rpartition("/")[0]
    name, slash, after = pattern[len(base) + 1 if "/" in head else 0 :].partition("/")
    name = name.replace("[^", "[!")
    selector = FileSelector(base or "/", allow_not_found=True)
    for info in sorted(system.get_file_info(selector), key=lambda info: info.path):
        if not fnmatchcase(info.base_name, name) or is_hidden(info.base_name):
            continue
        if not slash:
            yield info.path
        elif info.type == FileType.Directory:
            yield from expanded(system, f"{info.path}/{after}")


def would_read(pattern: str, path: str) -> bool:
    """Whether a pattern names a path or a folder above it, so that files there would be read."""
    parts = path.split("/")
    for one in alternatives(pattern):
        wanted = [name.replace("[^", "[!") for name in one.rstrip("/").split("/")]
        here, below_it = parts[: len(wanted)], parts[len(wanted) :]
        if len(here) == len(wanted) and all(map(fnmatchcase, here, wanted)):
            is_found = not is_hidden(here[-1]) or MAGIC.search(wanted[-1]) is None
            if is_found and not any(map(is_hidden, below_it)):
                return True
    return False


def is_hidden(name: str) -> bool:
    """Whether readers ignore a name, such as `_SUCCESS` or `.part.crc`, as Spark does."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def below(found: tuple[Resolved, FileInfo]) -> Iterator[DataFile]:
    """Yield the files of a folder, sorted by path; or the file itself."""
    place, info = found
    if info.type == FileType.File:
        yield DataFile(place, version=version_of(place, info))
        return
    infos = place.system.get_file_info(FileSelector(info.path, recursive=True))
    for one in sorted(infos, key=lambda info: info.path):
        parts = one.path[len(info.path) :].strip("/").split("/")
        if one.type != FileType.File or any(map(is_hidden, parts)) or not one.size:
            continue
        if one.base_name.endswith("._COPYING_"):
            continue
        here = Resolved(place.root, one.path)
        yield DataFile(here, values_of(parts[:-1], place), version=version_of(here, one))


def values_of(folders: Sequence[str], place: Resolved) -> dict[str, str]:
    """Return the partition columns of a file from the names of its folders.

    Raises:
        ValueError: If a folder is not named `key=value`.
    """
    values = {}
    for name in folders:
        key, equals, value = name.partition("=")
        if not equals or not key:
            shown = place.shown
            raise ValueError(
                f"The folders in {shown!r} must be named `column=value`, so that Spark reads "
                f"them. Received: {name!r}. Name the folders by a pattern, such as "
                f"{shown + '/*'!r}"
            )
        values[key] = value
    return values


def check_keys(files: Sequence[DataFile]) -> None:
    """Refuse files whose folders give other columns than those of the first file.

    Raises:
        ValueError: If there are some.
    """
    for file in files:
        if list(file.values) != list(files[0].values):
            before, now = (one.place.shown for one in (files[0], file))
            raise ValueError(
                "The folders of all files must be named by the same columns. Received: "
                f"{list(files[0].values)} for {before!r}, and {list(file.values)} for {now!r}"
            )
