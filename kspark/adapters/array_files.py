"""Arrays in files: `.npy` and `.npz` of NumPy on the driver's disk, and data sets of h5py and zarr.

Arrays are mapped from files, so they are read piece by piece when their rows are sent. Those that
cannot be mapped, as they are compressed, are first copied piece by piece to a temporary file. It is
deleted as soon as it is mapped: the system frees its space when the array is gone.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from kspark import temporary
from kspark.adapters.arrays import ArrayExamples
from kspark.adapters.base import CHUNK_BYTES, Columns
from kspark.adapters.column_names import missing
from kspark.adapters.conform import Place
from kspark.adapters.tables import adapt_columns
from kspark.errors import Described, invalid, invalid_type
from kspark.files.paths import is_remote, local_path, without_options, without_secrets
from kspark.shards import InputSpec

ARRAY, ARCHIVE = ".npy", ".npz"
"""Endings of files with one array, and of files with several arrays."""

SLICED = (("h5py.", "Dataset"), ("zarr.", "Array"))
"""Packages and names of types whose arrays are on disk."""


@dataclass(frozen=True)
class Archive:
    """A `.npz` file: a table whose columns are arrays.

    Attributes:
        path: String.
        names: Tuple of strings, the arrays.
    """

    path: str
    names: tuple[str, ...]

    @classmethod
    def open(cls, path: str) -> Archive:
        """List the arrays of a file.

        Raises:
            ValueError: If it is not a NumPy archive.
            OSError: If it cannot be read.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                names = [n.removesuffix(ARRAY) for n in archive.namelist() if n.endswith(ARRAY)]
        except zipfile.BadZipFile as error:
            raise not_of_numpy(path, error) from error
        return cls(path, tuple(names))

    def array(self, name: str) -> np.ndarray:
        """Return an array, mapped from a temporary file."""

        def write(path: str) -> None:
            member = f"{name}{ARRAY}"
            with (
                zipfile.ZipFile(self.path) as archive,
                archive.open(member) as source,
                open(path, "wb") as target,
            ):
                shutil.copyfileobj(source, target, CHUNK_BYTES)

        return mapped_copy(write, f"{name!r} in {self.path!r}")


def is_array_file(value: object) -> bool:
    """Whether a value is the path of a file with arrays of NumPy."""
    if not isinstance(value, str | os.PathLike):
        return False
    path = os.fspath(value)
    return isinstance(path, str) and without_options(path).endswith((ARRAY, ARCHIVE))


def loaded(value: Any, *, archives: bool = True) -> Any:
    """Return the array of a path or of a data set on disk, and any other value unchanged.

    A list, tuple or dictionary of these has an array in place of each. Strings in a list stay
    text, as they do for Parquet files: a `pathlib.Path` is always a path.

    Args:
        value: The user's data.
        archives: Boolean, whether the path may be that of a `.npz` file, which becomes an
            `Archive`. Defaults to `True`.

    Raises:
        ValueError: If the file is not of NumPy, or has Python objects.
        TypeError: If the file is a `.npz` file, but may not be.
        OSError: If the file cannot be read.
    """
    if is_array_file(value):
        return opened_file(value, archives=archives)
    if is_sliced(value):
        return sliced(value)
    if isinstance(value, Mapping) and any(map(is_on_disk, value.values())):
        return {name: loaded(part, archives=False) for name, part in value.items()}
    if isinstance(value, list | tuple) and any(
        is_on_disk(part) and not isinstance(part, str) for part in value
    ):
        parts = [loaded(part, archives=False) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


def is_on_disk(value: object) -> bool:
    """Whether a value is the path of a file with arrays, or an array of h5py or zarr."""
    return is_array_file(value) or is_sliced(value)


def opened_file(value: str | os.PathLike[str], *, archives: bool) -> np.ndarray | Archive:
    """Open a file with arrays; see `loaded`."""
    given = os.fspath(value)
    if is_remote(given):
        rule = (
            f"a path on the driver's disk if it ends in {ARRAY!r} or {ARCHIVE!r}: copy the file, "
            "or write its rows to Parquet files, which the workers read"
        )
        raise invalid("path", rule, without_secrets(given))
    path = os.path.expanduser(local_path(given))
    if path.endswith(ARRAY):
        return mapped(path, repr(given))
    if not archives:
        rule = (
            f"one array. Of the arrays in a {ARCHIVE!r} file, pass one with `np.load(path)[name]`, "
            "or pass the file as `x` and name them with `features_col`, `label_col` and "
            "`weight_col`"
        )
        raise invalid_type("path", rule, given)
    return Archive.open(path)


def mapped(path: str, title: str) -> np.ndarray:
    """Map the array of a file.

    Args:
        path: String.
        title: String, the name of the array in errors.

    Raises:
        ValueError: If the file is not of NumPy, or has Python objects or a single value.
        OSError: If it cannot be read.
    """
    try:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        if "objects" in str(error):
            rule = (
                "an array of numbers or text, and not of Python objects, which would have to be "
                "unpickled. Save it again with `np.save(path, np.stack(list(array)))`"
            )
            raise ValueError(f"{title} must be {rule}") from error
        raise not_of_numpy(title, error) from error
    if array.ndim == 0:
        raise ValueError(
            f"{title} must be an array with one row per example. Received: an array without axes"
        )
    return array


def not_of_numpy(title: str, error: Exception) -> ValueError:
    """Make the error for a file that NumPy did not write, or not to its end."""
    reason = "its first bytes are those of another format" if "pickle" in str(error) else error
    return ValueError(
        f"{title} must be a whole file of `np.save` or `np.savez`. Received: a file that cannot be "
        f"read: {reason}"
    )


def mapped_copy(write: Callable[[str], None], title: str) -> np.ndarray:
    """Map an array from a temporary file, and delete the file.

    Args:
        write: Function that writes the array to a path, in NumPy's format.
        title: String, the name of the array in errors.
    """
    folder = temporary.Folder(temporary.ARRAYS)
    try:
        path = os.path.join(folder.path, f"array{ARRAY}")
        write(path)
        return mapped(path, title)
    finally:
        folder.remove()


def is_sliced(value: object) -> bool:
    """Whether a value is an array of h5py or zarr. The packages need not be installed."""
    return any(
        f"{kind.__module__}.".startswith(module) and kind.__name__ == name
        for kind in type(value).__mro__
        for module, name in SLICED
    )


def sliced(value: Any) -> np.ndarray:
    """Copy an array on disk to a temporary file, slice by slice, and map it.

    Text, and what has no rows, is read as a whole.
    """
    if value.dtype.hasobject or not value.shape or 0 in value.shape:
        return np.asarray(value)

    def write(path: str) -> None:
        target = np.lib.format.open_memmap(path, "w+", value.dtype, value.shape)
        rows = max(1, CHUNK_BYTES // max(1, target[:1].nbytes))
        for start in range(0, len(target), rows):
            target[start : start + rows] = value[start : start + rows]
        target.flush()

    return mapped_copy(write, "The array")


def adapt_archive(
    spark: SparkSession, x: Archive, y: Any, sample_weight: Any, spec: InputSpec, columns: Columns
) -> ArrayExamples:
    """Make examples from the arrays of a `.npz` file. `y` and `sample_weight` replace its arrays.

    Raises:
        ValueError: If an array is missing, or does not fit `spec`.
    """
    if spec.targets and y is None and columns.label_col is None:
        rule = f"the array(s) of the labels for the outputs {[t.name for t in spec.targets]}"
        raise invalid("label_col", rule, Described("None"))

    if columns.features_col == "features" and "features" not in x.names and x.names:
        error = missing("features", x.names, "features_col")
        raise ValueError(f"{error}. Name the array of the features: `features_col={x.names[0]!r}`")

    def read(name: str, place: Place, is_loose: bool) -> np.ndarray:
        return x.array(name)

    return adapt_columns(spark, read, x.names, y, sample_weight, spec, columns, is_mapped=True)
