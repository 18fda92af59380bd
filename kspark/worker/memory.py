"""End a Python worker that has grown by what TensorFlow keeps of models that are gone.

Spark reuses a Python worker for all tasks of an application. TensorFlow does not free all that it
has allocated for a model, also in a process that uses plain Keras. So a worker that trains models
of many architectures would grow until the host has no memory left. It ends after a task instead,
and Spark starts another one for the next task.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from typing import Any
from weakref import WeakKeyDictionary

logger = logging.getLogger("kspark")

MOST_BYTES = 1 << 30
"""Largest growth of a worker before it ends, on any host."""

LEAST_BYTES = 384 << 20
"""Growth that does not end a worker, on any host: it costs less than to start another one."""

SHARE_OF_HOST = 8
"""All workers of a host together grow by at most this part of its memory before they end."""

_first: list[int] = []
"""`own_bytes` when the second model was built: the first one starts the backend."""

_held: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""The memory that each replica takes. It is not growth as long as the replica exists."""

_models: list[int] = [0]
"""Number of models that this process has built."""


def check_memory(threads: int) -> None:
    """Let this worker end after its task, if models that it no longer has have made it too large.

    Call it before a model is built, when those that it replaces are freed.

    Args:
        threads: Integer, threads of a task.
    """
    _models[0] += 1
    if _models[0] == 1:
        return
    if not _first:
        _first.append(own_bytes())
        return
    most = allowed_growth(threads)
    if own_bytes() - _first[0] > most:
        gc.collect()
        if own_bytes() - _first[0] > most:
            end_after_task()


def hold(replica: Any, nbytes: int) -> None:
    """Note what a replica takes, so that it is not taken for what a model has left behind.

    Args:
        replica: `Replica`.
        nbytes: Integer, the size of its variables.
    """
    _held[replica] = nbytes


def own_bytes() -> int:
    """Return the memory that this process uses beside its replicas."""
    return resident_bytes() - sum(_held.values())


def models_built() -> int:
    """Return how many models this process has built. Those that it took over do not count."""
    return _models[0]


def resident_bytes() -> int:
    """Return the memory that this process uses, or 0 where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def allowed_growth(threads: int) -> int:
    """Return by how many bytes a worker may grow before it ends.

    Args:
        threads: Integer, threads of a task.
    """
    workers = max(1, (os.cpu_count() or 1) // max(1, threads))
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(LEAST_BYTES, min(MOST_BYTES, host // SHARE_OF_HOST // workers))


def end_after_task() -> None:
    """Let this worker end when its task has ended. The task succeeds.

    After a task, a worker of PySpark tells Spark that it is ready for the next one. If it writes
    another number, Spark starts a new worker instead. There is no public way to do that. In PySpark
    3.5 to 4.3, `pyspark.worker` calls `write_int` by this name.
    """
    from pyspark.serializers import SpecialLengths

    worker: Any = sys.modules.get("pyspark.worker")
    if worker is None or getattr(worker.write_int, "ends", False):
        return
    logger.info(
        "This Python worker ends after its task, and Spark starts another one: it uses %.0f MB, "
        "among them what the backend keeps of models that are gone.",
        resident_bytes() / 1e6,
    )
    write = worker.write_int

    def write_int(value: int, stream: Any) -> None:
        if value != SpecialLengths.END_OF_STREAM:
            write(value, stream)
            return
        write(SpecialLengths.END_OF_DATA_SECTION, stream)
        sys.exit(-1)

    write_int.ends = True  # type: ignore[attr-defined]
    worker.write_int = write_int
