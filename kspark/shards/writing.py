"""Write a shard: one partition's rows to local disk, once per fit."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kspark.errors import invalid
from kspark.shards.files import (
    TEXT_BLOCK,
    NumberWriter,
    SparseWriter,
    TextWriter,
    read_ranges,
)
from kspark.shards.handle import LabelStats, ShardHandle, StoredArray
from kspark.shards.marks import mark_in
from kspark.shards.ragged import kind_of
from kspark.shards.ragged_files import RaggedWriter
from kspark.shards.removal import folder_name, local_folders
from kspark.shards.rows import Chunk
from kspark.shards.sparse import Features, SparseRows
from kspark.shards.spec import RAGGED, ArraySpec, InputSpec

RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class SpoolMissingError(FileNotFoundError):
    """The files of a shard are missing or incomplete on this host."""


def spool_directory(run_id: str, index: int = 0) -> str:
    """Return the directory for one shard's files. It is not created.

    Shards are distributed over Spark's local directories.

    Args:
        run_id: String of letters, digits, `-`, `_` and `.`. `remove_spools` removes
            everything that was spooled under one id.
        index: Integer, number of the partition. Defaults to `0`.

    Returns:
        String, a path.
    """
    if not RUN_ID.fullmatch(run_id) or set(run_id) == {"."}:
        raise invalid("run_id", "1 to 128 letters, digits, '-', '_' or '.'", run_id)
    folders = local_folders()
    return os.path.join(folders[index % len(folders)], folder_name(run_id))


def shard_name(index: int) -> str:
    """Return a new name for the directory of one shard's files."""
    return f"shard-{index:05d}-{uuid.uuid4().hex[:12]}"


def spool(
    chunks: Iterable[Chunk],
    index: int,
    run_id: str,
    *,
    spec: InputSpec | None = None,
    directory: str | None = None,
    is_loose: bool = False,
) -> ShardHandle:
    """Write one partition to local disk, in bounded memory.

    The files are written to a temporary directory that is renamed when the shard is
    complete. Two attempts of one task write two shards with different names; the
    handle that Spark keeps refers to one of them.

    Args:
        chunks: Iterable of `Chunk`; read to its end.
        index: Integer, number of the partition.
        run_id: String, as in `spool_directory`.
        spec: `InputSpec` that names the arrays. Defaults to `None`: the names are
            "x0", "y0", and so on.
        directory: String, the directory to write to. Defaults to
            `spool_directory(run_id, index)`.
        is_loose: Boolean, whether the rows of all inputs may have different shapes, as those of
            inputs of `spec` that are loose. Defaults to `False`.

    Returns:
        A `ShardHandle`, of 0 examples and no arrays if there are no rows.

    Raises:
        ValueError: If the chunks differ in the number or the shapes of their arrays.
    """
    folder = spool_directory(run_id, index) if directory is None else directory
    os.makedirs(folder, mode=0o700, exist_ok=True)
    mark = mark_in(folder, spool_directory(run_id) if directory is None else None)
    path = os.path.join(folder, shard_name(index))
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
        inside = os.path.join(partial, "shard")
        os.mkdir(inside, mode=0o700)
        writer = ShardWriter(inside, spec, is_loose=is_loose)
        try:
            for chunk in chunks:
                writer.write(chunk)
        finally:
            writer.close()
        os.replace(inside, path)
    return replace(writer.handle(index, path), mark=mark)


class ShardWriter:
    """Writes chunks to the files of one shard.

    Args:
        folder: String, an empty directory.
        spec: `InputSpec` that names the arrays, or `None`.
        is_loose: As for `spool`. Defaults to `False`.
    """

    def __init__(
        self, folder: str, spec: InputSpec | None = None, *, is_loose: bool = False
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._is_loose = is_loose
        self._columns: dict[str, list[ColumnWriter]] = {}
        self.num_examples = 0

    def write(self, chunk: Chunk) -> None:
        """Append the rows of a chunk.

        Raises:
            ValueError: If the number or the shapes of its arrays differ from those before.
        """
        groups = {"x": chunk.x, "y": chunk.y, "sample_weight": chunk.sample_weight}
        lengths = {len(a) for a in chunk.arrays}
        if len(lengths) > 1:
            raise invalid("chunk", "arrays of equal length", [a.shape for a in chunk.arrays])
        if not self._columns:
            self._columns = {group: self._open(group, arrays) for group, arrays in groups.items()}
        for group, arrays in groups.items():
            columns = self._columns[group]
            if len(columns) != len(arrays):
                raise ValueError(
                    f"All rows must have the same number of arrays. Received: {len(columns)} "
                    f"arrays of {group} up to row {self.num_examples}, then {len(arrays)}"
                )
            for column, array in zip(columns, arrays, strict=True):
                column.write(array, self.num_examples)
        self.num_examples += chunk.num_examples

    def _open(self, group: str, arrays: Sequence[Features]) -> list[ColumnWriter]:
        specs: Sequence[ArraySpec] = ()
        if self._spec is not None and group != "sample_weight":
            specs = self._spec.inputs if group == "x" else self._spec.targets
        known = len(specs) == len(arrays)
        return [
            ColumnWriter(
                self._folder,
                specs[i].name if known else f"{group}{i}",
                f"{group}{i}",
                array,
                with_stats=group == "y",
                is_loose=(known and specs[i].is_loose) or (self._is_loose and group == "x"),
            )
            for i, array in enumerate(arrays)
        ]

    def close(self) -> None:
        """Write the buffered rows and close all files."""
        for columns in self._columns.values():
            for column in columns:
                column.close()

    def handle(self, index: int, path: str) -> ShardHandle:
        """Return the handle of the shard, whose files are under `path`. Call `close` first."""
        stored: dict[str, Any] = {g: tuple(c.stored for c in cs) for g, cs in self._columns.items()}
        return ShardHandle(
            index=index,
            num_examples=self.num_examples,
            path=path,
            host=platform.node(),
            nbytes=sum(s.nbytes for group in stored.values() for s in group),
            stats=tuple(c.stats for c in self._columns.get("y", ())),
            **stored,
        )


class ColumnWriter:
    """Writes one array of a shard.

    Args:
        folder: String, the shard's directory.
        name: String, name of the input or target.
        file: String, file name without its extension.
        first: Array or `SparseRows` of the first rows. They determine the shape and dtype, and
            whether the file is sparse. They are not written.
        with_stats: Boolean, whether to compute `LabelStats`.
        is_loose: Boolean, whether later rows may have another shape.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        file: str,
        first: Features,
        with_stats: bool,
        is_loose: bool,
    ) -> None:
        self._name = name
        self._is_text = first.dtype == object
        self._is_loose = is_loose
        self._file = file + (".arrow" if self._is_text else ".bin")
        self._folder, self._path = folder, os.path.join(folder, self._file)
        self._shape = first.shape[1:]
        self._writer: NumberWriter | SparseWriter | TextWriter | RaggedWriter
        kind = kind_of(np.asarray(first)) if self._is_text else None
        if kind == RAGGED:
            self._writer, self._shape = RaggedWriter(self._path), ()
        elif kind is not None:
            self._writer = TextWriter(self._path, int(np.prod(self._shape)), kind)
        elif isinstance(first, SparseRows) and first.saves_memory:
            self._writer = SparseWriter(self._path, first.dtype)
        else:
            self._writer = NumberWriter(self._path, first.dtype)
        self._nbytes = 0
        self.stats = LabelStats() if with_stats and not self._is_text else None

    def write(self, values: Any, first_row: int) -> None:
        """Append rows.

        Raises:
            ValueError: If their shape differs from that of the rows before, or if text follows
                numbers or numbers follow text.
        """
        if self._is_loose and self._writer.dtype != RAGGED and not self._fits(values):
            self._loosen(first_row)
        if self._writer.dtype == RAGGED:
            self._writer.write(values)
            return
        if values.shape[1:] != self._shape:
            raise ValueError(
                f"All rows of {self._name!r} in a partition must have the same shape. Received: "
                f"{self._shape} up to row {first_row}, then {values.shape[1:]}"
            )
        if values.dtype.kind not in ("O" if self._is_text else "biuf"):
            what = "text" if self._is_text else "numbers"
            raise ValueError(
                f"Rows of {self._name!r} must be {what}. Received: {values.dtype} from row "
                f"{first_row} on"
            )
        if self.stats is not None:
            self.stats = self.stats.merge(LabelStats.of(values))
        self._writer.write(values)

    def _fits(self, values: Any) -> bool:
        """Whether rows have the shape of those before, or cannot be beside them at all."""
        if (values.dtype == object) != self._is_text:
            return self._is_text or kind_of(np.asarray(values)) != RAGGED
        if self._is_text and kind_of(np.asarray(values)) != self._writer.dtype:
            return False
        return values.shape[1:] == self._shape

    def _loosen(self, count: int) -> None:
        """Write the rows before anew, as rows of different shapes."""
        self._writer.close()
        before, stored = self._writer.paths, self.stored
        self._file, self._shape, self._is_text = f"{self._file}.ragged", (), True
        self._path = os.path.join(self._folder, self._file)
        self._writer = RaggedWriter(self._path)
        for start in range(0, count, TEXT_BLOCK):
            rows = [(start, min(start + TEXT_BLOCK, count))]
            self._writer.write(read_ranges(self._folder, stored, rows))
        for path in before:
            os.unlink(path)

    def close(self) -> None:
        """Write the buffered rows and close the files."""
        self._writer.close()
        self._nbytes = sum(map(os.path.getsize, self._writer.paths))

    @property
    def stored(self) -> StoredArray:
        """The array's description on disk. Call `close` first."""
        writer = self._writer
        return StoredArray(
            self._name, writer.dtype, self._shape, self._file, self._nbytes, writer.entries
        )
