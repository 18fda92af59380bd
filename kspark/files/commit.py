"""Collect the files of tasks in a hidden folder, and make them visible as a whole.

Each attempt of a task writes a file with a name of its own. After the job, the driver knows which
attempts count. Where a folder can be renamed in one step, on local disks and HDFS, the hidden
folder lies beside the output, and this step makes everything visible at once. An object store has
no folders: there, the hidden folder lies in the output, each file is moved by itself, and a reader
that must not see a part of the files waits for `_SUCCESS`.
"""

from __future__ import annotations

import errno
import logging
import os
import posixpath
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pyarrow.fs import FileSelector, FileSystem, FileType

from kspark.errors import invalid
from kspark.files.listing import MAGIC, is_hidden, would_read
from kspark.files.paths import Resolved, resolve

logger = logging.getLogger("kspark")

RENAMES_FOLDERS = ("local", "hdfs")
"""File systems of pyarrow that rename a folder in one step."""

DATA_ENDINGS = (".parquet", ".parq")
LEFT_BY_JOBS = ("_temporary", ".spark-staging")
"""How the names of folders begin that jobs leave in an output if they are killed."""

SUCCESS = "_SUCCESS"


@dataclass
class Output:
    """A folder that a job writes.

    Args:
        path: String, path of the folder.
        overwrite: Boolean, whether an existing folder is replaced. Defaults to `False`.
        name: String, a part of the names of this job's files. Defaults to one that no other has.

    Raises:
        FileExistsError: If it exists, and `overwrite` is `False`, or it has other files than rows.
        ValueError: If the path is empty, or the current directory is in the folder.
        UnreachableError: If its file system is unknown.
    """

    path: str
    overwrite: bool = False
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        if not self.path:
            raise invalid("output", "the path of a folder to write", self.path)
        self.place = real(resolve(self.path))  # A link stays, and leads to the new folder.
        self.keep_apart([Resolved("", os.getcwd())], "the current directory")
        self.atomic = self.system.type_name in RENAMES_FOLDERS
        parent, own = posixpath.split(self.place.path)
        inside = posixpath.join(self.place.path, f"_temporary-{self.name}")
        beside = f"_{own.replace('=', '-')}-{self.name}"  # Spark reads `_day=1`, too.
        self.staging = posixpath.join(parent, beside) if self.atomic else inside
        self.protect()

    @property
    def system(self) -> FileSystem:
        """The file system."""
        return self.place.system

    @property
    def attempts(self) -> Resolved:
        """The folder in which attempts of tasks write files with names of their own."""
        return Resolved(self.place.root, posixpath.join(self.staging, "_attempts"))

    def keep_outside(self, folders: Iterable[Resolved]) -> None:
        """Check that the output is in no folder whose files are read.

        Whoever reads such a folder again would find the output among its rows. Files and folders
        whose names begin with `_` or `.` are not read.

        Args:
            folders: Iterable of `Resolved`.

        Raises:
            ValueError: If it is in one.
        """
        for folder in map(real, folders):
            start, path = f"{folder.path.rstrip('/')}/", self.place.path
            is_in = folder.root == self.place.root and path.startswith(start)
            if is_in and not path[len(start) :].startswith(("_", ".")):
                raise invalid("output", f"a folder outside of {folder.path!r}, in `x`", self.path)

    def keep_from_patterns(self, places: Iterable[Resolved]) -> None:
        """Check that no pattern by which files are read names the output; see `keep_outside`.

        Args:
            places: Iterable of `Resolved`, patterns and other paths.

        Raises:
            ValueError: If one names it.
        """
        for place in places:
            is_pattern = MAGIC.search(place.path) and place.root == self.place.root
            if is_pattern and would_read(real(place).path, self.place.path):
                rule = f"a folder that the pattern {place.path!r}, in `x`, does not name"
                raise invalid("output", rule, self.path)

    def keep_from_partitions(self, files: Iterable[Resolved]) -> None:
        """Check that the output is no partition of a folder with some files; see `keep_outside`.

        Whoever reads the folder of these files later would find the output among its rows if its
        name is that of a partition, such as `day=2`. Readers skip other folders, or refuse them.

        Args:
            files: Iterable of `Resolved`, files.

        Raises:
            ValueError: If it is one.
        """
        path, places = self.place.path, map(real, files)
        here = (place for place in places if place.root == self.place.root)
        for folder in dict.fromkeys(posixpath.dirname(place.path) for place in here):
            names = path[len(folder) + 1 :].split("/") if path.startswith(f"{folder}/") else []
            if names and all("=" in name and not is_hidden(name) for name in names):
                rule = f"a folder that is no partition of {folder!r}, which has files of `x`"
                raise invalid("output", rule, self.path)

    def keep_apart(self, places: Iterable[Resolved], what: str) -> None:
        """Check that the output would replace none of some places.

        Args:
            places: Iterable of `Resolved`, files or folders.
            what: String, what they are, for the error.

        Raises:
            ValueError: If one of them is the output, or in it.
        """
        own = self.place.path.rstrip("/")
        for place in dict.fromkeys(places):
            if place.root == self.place.root and f"{real(place).path}/".startswith(f"{own}/"):
                raise invalid("output", f"a folder that does not hold {what}", self.path)

    def protect(self) -> None:
        """Refuse to replace what exists.

        Raises:
            FileExistsError: If it exists, and `overwrite` is `False`, or it has other files than
                rows.
        """
        if not self.overwrite and self.exists():
            raise FileExistsError(
                errno.EEXIST, "The output exists. Set `overwrite=True` to replace it", self.path
            )
        for other in self._others():
            raise FileExistsError(
                errno.EEXIST,
                f"`overwrite=True` replaces only Parquet files, and the output has {other!r}. "
                "Write to another folder, or delete this one",
                self.path,
            )

    def _others(self) -> Iterator[str]:
        """Yield what is at the path, and is not what a job wrote that wrote Parquet files."""
        if self.system.get_file_info(self.place.path).type == FileType.File:
            if not self.place.path.endswith(DATA_ENDINGS):
                yield posixpath.basename(self.place.path)
            return
        selector = FileSelector(self.place.path, recursive=True, allow_not_found=True)
        for info in self.system.get_file_info(selector):
            name = info.path[len(self.place.path) :].strip("/")
            *folders, own = name.split("/")
            if info.type == FileType.Directory:
                folders, own = [*folders, own], ""
            if any(folder.startswith(LEFT_BY_JOBS) for folder in folders):
                continue
            is_rows = not own or is_hidden(own) or own.endswith(DATA_ENDINGS)
            if not is_rows or not all("=" in folder for folder in folders):
                yield name

    def exists(self) -> bool:
        """Whether there is something at the path: in an object store, a file that readers see."""
        if self.atomic:
            return bool(self.system.get_file_info(self.place.path).type != FileType.NotFound)
        return bool(self._visible())

    def _visible(self) -> list[str]:
        """Return the paths of the files below the output that readers see."""
        selector = FileSelector(self.place.path, recursive=True, allow_not_found=True)
        found = []
        for info in self.system.get_file_info(selector):
            parts = info.path[len(self.place.path) :].strip("/").split("/")
            if info.type == FileType.File and not any(map(is_hidden, parts)):
                found.append(info.path)
        return found

    def begin(self) -> None:
        """Create the hidden folder. Tasks never create it, so that a late one finds none."""
        self.system.create_dir(self.attempts.path, recursive=True)

    def commit(self, names: Sequence[str]) -> None:
        """Make files of attempts visible, in the order of `names`, and no others.

        Raises:
            FileExistsError: If the output was created in the meantime.
            OSError: If a file is missing or cannot be moved.
        """
        self.protect()
        if self.atomic:
            self._move(names, self.staging)
            self.system.delete_dir(self.attempts.path)
            self._mark(self.staging)
            self._swap()
        else:
            self._commit_one_by_one(names)

    def _move(self, names: Sequence[str], folder: str) -> None:
        for number, name in enumerate(names):
            part = f"part-{number:05d}-{self.name}.parquet"
            self.system.move(posixpath.join(self.attempts.path, name), posixpath.join(folder, part))

    def _mark(self, folder: str) -> None:
        with self.system.open_output_stream(posixpath.join(folder, SUCCESS)):
            pass

    def _swap(self) -> None:
        """Rename the hidden folder to the output; restore what was there if that fails."""
        if not self.exists():
            self.system.move(self.staging, self.place.path)
            return
        old = f"{self.staging}-replaced"
        self.system.move(self.place.path, old)
        try:
            self.system.move(self.staging, self.place.path)
        except BaseException:
            self.system.move(old, self.place.path)
            raise
        self._delete(old)

    def _commit_one_by_one(self, names: Sequence[str]) -> None:
        """Move each file by itself. Earlier files go when the new ones are there."""
        before, marker = self._visible(), posixpath.join(self.place.path, SUCCESS)
        if self.system.get_file_info(marker).type != FileType.NotFound:
            self.system.delete_file(marker)
        self._move(names, self.place.path)
        for path in before:
            self.system.delete_file(path)
        self._mark(self.place.path)
        self.discard()

    def _delete(self, path: str) -> None:
        if self.system.get_file_info(path).type == FileType.Directory:
            self.system.delete_dir(path)
        else:
            self.system.delete_file(path)

    def discard(self) -> None:
        """Delete the hidden folder, if it is there. A failure is logged, not raised."""
        try:
            if self.system.get_file_info(self.staging).type != FileType.NotFound:
                self.system.delete_dir(self.staging)
        except OSError as error:
            logger.warning("The folder %s could not be deleted: %s", self.staging, error)


def real(place: Resolved) -> Resolved:
    """Return a place on the local disk without links; others as they are."""
    return place if place.root else Resolved("", os.path.realpath(place.path))
