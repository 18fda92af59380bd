"""Send kspark's own code with each job, so that executors need not have it installed.

`ship` turns a function of kspark into a callable that Spark pickles *by
value*: this module's source, the function's name, its arguments, and kspark
as a zip archive. On the executor, the callable first makes kspark importable:
from the installed package if its code is identical, else from the archive.

This module imports nothing of kspark, because it runs before kspark can be imported.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import os
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any


class Shipped:
    """A function of kspark that can be called on an executor without kspark.

    Args:
        target: String, `"module:function"`.
        args: Bytes, the pickled first positional arguments.
        shared: Tuple of Spark broadcasts, `Enclosed`, `Uploaded` or `Derived`. Their values are the
            positional arguments after `args`.
        archive: Bytes, kspark as a zip archive.
        digest: String, digest of the code in `archive`.
        log: String, the driver's setting of `KSPARK_LOG`, see `kspark.logs`.
        in_turn: Boolean, whether the function gets `shared` itself, and not the values.
    """

    def __init__(
        self,
        target: str,
        args: bytes,
        shared: tuple[Any, ...],
        archive: bytes,
        digest: str,
        log: str,
        in_turn: bool,
    ) -> None:
        self.target = target
        self.args = args
        self.shared = shared
        self.archive = archive
        self.digest = digest
        self.log = log
        self.in_turn = in_turn

    def __call__(self, *call_args: Any) -> Any:
        """Call the function with the shipped arguments, the shared values, then `call_args`."""
        if self.log:
            os.environ["KSPARK_LOG"] = self.log
        use_code(self.archive, self.digest)
        # Before anything can start a backend, such as a model among the arguments.
        importlib.import_module("kspark.cluster.accelerators").take_devices()
        module, name = self.target.split(":")
        function = getattr(importlib.import_module(module), name)
        # Safe: Spark delivered these bytes together with the code that runs here.
        args = pickle.loads(self.args)
        shared = self.shared if self.in_turn else [b.value for b in self.shared]
        return function(*args, *shared, *call_args)


class Enclosed:
    """A value pickled into the functions that use it, for sessions without broadcasts.

    It has the members of a broadcast that `Shipped` and its callers use.

    Args:
        value: Anything Spark's cloudpickle can pickle.
    """

    def __init__(self, value: Any) -> None:
        from pyspark import cloudpickle

        self._pickled = cloudpickle.dumps(value)

    @property
    def pickled(self) -> bytes:
        """The value as bytes."""
        return self._pickled

    @property
    def value(self) -> Any:
        """The value. On an executor, read it only after kspark has become importable."""
        # Safe: Spark delivered these bytes together with the code that runs here.
        return pickle.loads(self._pickled)

    def destroy(self) -> None:
        """Do nothing: the executors keep no copy."""


class Uploaded:
    """A value in a file that Spark brings to each executor, for one that is too large to enclose.

    It has the members of a broadcast that `Shipped` and its callers use.

    Args:
        name: String, the name of the file, which no other file of the session has.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def value(self) -> Any:
        """The value. Read it on an executor, after kspark has become importable."""
        from pyspark import SparkFiles

        with open(SparkFiles.get(self._name), "rb") as stream:
            # Safe: the driver's own process wrote the file, and Spark delivered it.
            return pickle.load(stream)

    def destroy(self) -> None:
        """Do nothing: Spark keeps the files of a session until it is stopped."""


class Derived:
    """The return value of a function that the executors call, for instance on shared values.

    It has the members of a broadcast that `Shipped` and its callers use.

    Args:
        make: `Shipped`, called without further arguments.
    """

    def __init__(self, make: Shipped) -> None:
        self._make = make

    @property
    def value(self) -> Any:
        """The value, computed on every access."""
        return self._make()

    def destroy(self) -> None:
        """Do nothing: the owners of the shared values destroy those."""


def ship(
    function: Callable[..., Any],
    *args: Any,
    shared: tuple[Any, ...] = (),
    in_turn: bool = False,
) -> Shipped:
    """Make a module-level function of kspark callable on executors.

    Args:
        function: A module-level function of kspark.
        *args: Its first arguments; anything Spark's cloudpickle can pickle.
        shared: Tuple of Spark broadcasts, `Enclosed`, `Uploaded` or `Derived`. Their values are the
            arguments after `args`.
        in_turn: Boolean, whether the function gets `shared` themselves, to read their values one
            after the other with `values_in_turn`. Defaults to `False`.

    Returns:
        A `Shipped`, to pass to `mapPartitions` and similar methods.
    """
    from pyspark import cloudpickle

    by_value(sys.modules[__name__])
    archive, digest = package_archive()
    target = f"{function.__module__}:{function.__qualname__}"
    log = os.environ.get("KSPARK_LOG", "")
    return Shipped(target, cloudpickle.dumps(args), tuple(shared), archive, digest, log, in_turn)


def values_in_turn(broadcasts: Iterable[Any]) -> Iterator[Any]:
    """Yield the values of broadcasts one after the other, so that only one is in memory.

    Spark keeps each value that was read as long as the broadcast exists. It is dropped here, if
    Spark can read it again from its file, for instance for another attempt of the task.
    """
    for broadcast in broadcasts:
        yield broadcast.value
        kept = vars(broadcast)  # There is no public way. PySpark 3.5 to 4.3 have these attributes.
        if kept.get("_path") is not None:
            kept.pop("_value", None)


def by_value(*modules: ModuleType) -> None:
    """Let Spark pickle the functions of modules by value, for executors that do not import kspark.

    Args:
        *modules: Modules that import nothing of kspark but each other.
    """
    from pyspark import cloudpickle

    for module in modules:
        cloudpickle.register_pickle_by_value(module)


@functools.lru_cache(maxsize=1)
def package_archive() -> tuple[bytes, str]:
    """Return kspark's sources as the bytes of a zip file, and their digest."""
    sources = package_sources()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sources:
            archive.writestr(zipfile.ZipInfo(name), source, zipfile.ZIP_DEFLATED)
    return buffer.getvalue(), sources_digest(sources)


def package_sources() -> list[tuple[str, bytes]]:
    """Return the source files of the imported kspark.

    Returns:
        Sorted list of pairs (path relative to the package's parent folder, content).
    """
    package = importlib.import_module("kspark")
    loader: Any = package.__spec__.loader if package.__spec__ else None
    root = os.path.dirname(str(package.__file__))
    if hasattr(loader, "archive"):  # kspark itself was imported from an archive
        with zipfile.ZipFile(loader.archive) as archive:
            names = [n for n in archive.namelist() if n.startswith("kspark/") and n[-3:] == ".py"]
            return sorted((n, archive.read(n)) for n in names)
    sources = []
    for folder, _, files in os.walk(root):
        for file in sorted(f for f in files if f.endswith(".py")):
            path = os.path.join(folder, file)
            name = os.path.relpath(path, os.path.dirname(root)).replace(os.sep, "/")
            with open(path, "rb") as stream:
                sources.append((name, stream.read()))
    return sorted(sources)


def sources_digest(sources: list[tuple[str, bytes]]) -> str:
    """Return the first 16 hexadecimal digits of the sources' SHA-256 digest."""
    digest = hashlib.sha256()
    for name, source in sources:
        digest.update(name.encode() + b"\0" + source + b"\0")
    return digest.hexdigest()[:16]


def use_code(archive: bytes, digest: str) -> None:
    """Make `import kspark` in this process import exactly the code in `archive`."""
    imported = getattr(sys, "_kspark_digest", None)
    if imported == digest:
        return
    if imported is not None or installed_digest() != digest:
        for name in [n for n in sys.modules if n == "kspark" or n.startswith("kspark.")]:
            del sys.modules[name]
        sys.path.insert(0, write_archive(archive, digest))
        importlib.invalidate_caches()
    sys._kspark_digest = digest  # type: ignore[attr-defined]


def installed_digest() -> str | None:
    """Return the digest of the kspark that this process can import, or `None`."""
    try:
        importlib.import_module("kspark")
    except ImportError:
        return None
    return sources_digest(package_sources())


def write_archive(archive: bytes, digest: str) -> str:
    """Write the archive into Spark's local directory, which Spark removes, and return its path."""
    folders = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
    folder = folders[0] if folders[0] and os.path.isdir(folders[0]) else tempfile.gettempdir()
    path = os.path.join(folder, f"kspark-{digest}.zip")
    if holds(path, archive):
        return path
    handle, partial = tempfile.mkstemp(prefix="kspark-", suffix=".zip", dir=folder)
    with os.fdopen(handle, "wb") as stream:
        stream.write(archive)
    if not os.path.lexists(path) or holds(path, archive):  # Another process may have written it.
        os.replace(partial, path)
        return path
    return partial  # The file at `path` is another user's or damaged: do not run it.


def holds(path: str, content: bytes) -> bool:
    """Whether a file belongs to this user and has exactly this content."""
    try:
        if os.path.islink(path) or (hasattr(os, "getuid") and os.stat(path).st_uid != os.getuid()):
            return False
        with open(path, "rb") as stream:
            return stream.read() == content
    except OSError:
        return False
