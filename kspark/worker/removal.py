"""Delete the files of a fit on the executors, and free its replicas.

These functions travel by value and run without kspark: after an interrupt, they run in new Python
processes, in which the import of kspark would take longer than everything else.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from kspark.cluster.bootstrap import by_value
from kspark.shards import removal
from kspark.shards.removal import remove_spools


def clean_up(fit_id: str, index: int, handles: Iterable[bytes]) -> Iterator[int]:
    """Delete the files of a fit on this host, and free its replica."""
    for document in list(handles):
        handle = json.loads(bytes(document))
        shutil.rmtree(handle["path"], ignore_errors=True)  # Including its state files.
        yield handle["index"]
    yield from clean_host(fit_id, index, ())


def clean_host(fit_id: str, index: int, rows: Iterable[object]) -> Iterator[int]:
    """Delete the remaining files of a fit, such as incomplete shards, and free its replica."""
    for _ in rows:
        continue
    remove_spools(fit_id)
    # A process without this module has no replica, and need not import Keras to free one.
    state = sys.modules.get("kspark.worker.state")
    if state is not None:
        state.release(fit_id)
    return iter(())


def task_of(function: Any, fit_id: str) -> Any:
    """Return `clean_up` or `clean_host` for a fit, for Spark to pickle by value."""
    by_value(sys.modules[__name__], removal)
    return partial(function, fit_id)
