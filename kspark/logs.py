"""Keep the messages of TensorFlow, CUDA and Spark off the screen, unless `KSPARK_LOG` is set.

TensorFlow writes about a dozen lines to stderr when it is imported and when it first uses a
device, in the driver and in every worker. None of them is about the user's program. Its setting
`TF_CPP_MIN_LOG_LEVEL` hides all but those that its libraries write while they are loaded, before
they read it. So stderr is filtered while `tensorflow` is imported.

This module imports nothing heavy, because every executor imports it.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

VARIABLE = "KSPARK_LOG"
"""Environment variable: `1` shows all messages, on the driver and on the workers."""

TENSORFLOW_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""TensorFlow's own variable: `0` shows everything, `3` fatal errors only."""

MESSAGE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\)"
    rb"|[IWE]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] "
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] "
    rb"|To enable the following instructions: "
)
"""Matches the beginning of a line that TensorFlow writes, unless the line is a fatal error."""


def are_shown() -> bool:
    """Whether the user asked to see the messages."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def hide_tensorflow() -> None:
    """Hide the messages of TensorFlow in this process, from now on."""
    if are_shown() or os.environ.setdefault(TENSORFLOW_LEVEL, "3") == "0":
        return
    if not any(isinstance(finder, QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, QuietFinder())


class QuietFinder(MetaPathFinder):
    """Finds `tensorflow`, and has it loaded by `QuietLoader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of `tensorflow`, and `None` for every other module."""
        if fullname != "tensorflow":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = QuietLoader(spec.loader)
        return spec


class QuietLoader(Loader):
    """Loads a module without its messages.

    Args:
        loader: The loader that Python found. The module keeps it as its own.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the other loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code without its messages."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with filtered_stderr():
            self._loader.exec_module(module)


@contextmanager
def filtered_stderr() -> Iterator[None]:
    """Drop TensorFlow's messages from what the process writes to stderr inside the block.

    All other lines are written when the block ends, those of other threads, too. If the block
    raises an exception, everything is written. If it ends the process, Python's `faulthandler`
    writes where that happened, because the text itself is lost.
    """
    import tempfile  # Only executors that import TensorFlow need it.

    try:
        temporary = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the block below)
        stderr = os.dup(2)
    except OSError:  # There is no folder for the file, or the process has no stderr.
        yield
        return
    with os.fdopen(stderr, "wb") as screen, temporary as held:
        watches = not faulthandler.is_enabled()
        if watches:
            faulthandler.enable(screen)
        os.dup2(held.fileno(), 2)
        finished = False
        try:
            yield
            finished = True
        finally:
            os.dup2(stderr, 2)
            if watches:
                faulthandler.disable()
            held.seek(0)
            screen.writelines(line for line in held if not (finished and MESSAGE.match(line)))
