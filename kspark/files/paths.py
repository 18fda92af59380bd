"""Find the file system of a path. The only place that knows schemes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

# At least two letters, so that a Windows drive is not a scheme; and a slash, so that
# `run:3.keras` is the name of a local file.
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/")
LOCAL = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
ROOT = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://([^/]*)/?")
OPTIONS = re.compile(r"\?[a-z_]+=[^/?]*$")
OTHER_OPTIONS = re.compile(r"\?[A-Za-z_]\w*=")
USER = re.compile(r"(?<=://)[^/@?]*@")
SECRET = re.compile(r"([?&][^=&/]*(?:secret|key|token|password)[^=&/]*=)[^&'\"\s]*", re.IGNORECASE)

ALIASES = {"s3a": "s3", "s3n": "s3"}
"""Hadoop's schemes that pyarrow and fsspec know under another name."""


class UnreachableError(OSError):
    """Neither pyarrow nor fsspec has a file system for a path."""


@dataclass(frozen=True)
class Resolved:
    """A path on a file system.

    Attributes:
        root: String, scheme, authority and options, from which `system_of` makes the file system
            in any process; `""` for the local disk.
        path: String, the path on that file system.
    """

    root: str
    path: str

    @property
    def system(self) -> FileSystem:
        """The file system, in this process."""
        return system_of(self.root)[0]

    @property
    def shown(self) -> str:
        """The path in errors."""
        return without_secrets(str(self))

    def __str__(self) -> str:
        base = system_of(self.root)[1].rstrip("/")
        root, mark, options = self.root.partition("?")
        rest = self.path.removeprefix(base).strip("/")
        return f"{root}{rest}{mark}{options}" if self.root else self.path


def is_remote(path: str) -> bool:
    """Whether `path` has a scheme other than `file:`."""
    scheme = SCHEME.match(path)
    return scheme is not None and scheme[1].lower() != "file"


def local_path(path: str) -> str:
    """Return `path` without `file:`. As in Hadoop, percent signs are not escapes."""
    return LOCAL.sub("", path, count=1) if SCHEME.match(path) else path


def without_options(path: str) -> str:
    """Return `path` without the options for pyarrow, if it is a URI with some."""
    return OPTIONS.sub("", path, count=1) if is_remote(path) else path


def without_secrets(text: str) -> str:
    """Return a text for errors: URIs in it lose the user, and the values of secret options."""
    return SECRET.sub(r"\1***", USER.sub("***@", text))


def resolve(path: str) -> Resolved:
    """Find the file system of a path.

    Args:
        path: String, a local path, in which `~` is the home folder, or a URI such as
            `"s3://bucket/folder"`. Options for pyarrow may follow, as in
            `"s3://bucket/folder?scheme=http&endpoint_override=storage:9000"`.

    Raises:
        UnreachableError: If neither pyarrow nor fsspec has a file system for it.
        ValueError: If options follow it that are not of this form.
    """
    if not is_remote(path):
        return Resolved("", os.path.abspath(os.path.expanduser(local_path(path))))
    given, path = path, without_options(path)
    if OTHER_OPTIONS.search(path):
        raise ValueError(
            "The options after a path must have names in small letters, and values without a "
            "slash or a question mark, as in "
            "`s3://bucket/rows?scheme=http&endpoint_override=storage:9000`. If the question mark "
            "is part of a pattern, write `*` or `[a-z]` in its place. Received: "
            f"{without_secrets(given)!r}"
        )
    options = given[len(path) :]
    found = ROOT.match(path)
    if found is None:
        raise UnreachableError(f"{without_secrets(path)!r} has a scheme, but no `//` after it.")
    scheme = found[1].lower()
    root = f"{ALIASES.get(scheme, scheme)}://{found[2]}/{options}"
    base = system_of(root)[1].rstrip("/")
    rest = path[found.end() :].strip("/")
    return Resolved(root, f"{base}/{rest}".rstrip("/") if rest else base or "/")


@lru_cache(maxsize=64)
def system_of(root: str) -> tuple[FileSystem, str]:
    """Return the file system of a root, and the path of the root on it.

    Raises:
        UnreachableError: If neither pyarrow nor fsspec has one.
    """
    if not root:
        return LocalFileSystem(), "/"
    try:
        system, path = FileSystem.from_uri(root)
        return system, str(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason = str(error)  # An unknown scheme, or a library such as libhdfs is missing.
    failed = without_secrets(f"pyarrow does not reach {root!r}: {reason}")
    if "?" in root:
        raise UnreachableError(failed)
    try:
        import fsspec

        other, path = fsspec.core.url_to_fs(root)
    except Exception as error:  # Each store of fsspec has errors of its own.
        reason = without_secrets(str(error))
        raise UnreachableError(f"{failed}. Nor does fsspec: {reason}") from error
    return PyFileSystem(FSSpecHandler(other)), str(path)
