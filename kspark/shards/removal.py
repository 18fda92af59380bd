"""Where the files of shards are, and how to delete them. Imports nothing but Python's own modules.

Spark pickles these functions by value to clean up after a fit; see `kspark.worker.removal`.
"""

from __future__ import annotations

import os
import shutil
import tempfile


def local_folders() -> list[str]:
    """Return Spark's local directories in this process, else the system's temporary directory."""
    folders = [f for f in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if f]
    return folders or [tempfile.gettempdir()]


def folder_name(run_id: str) -> str:
    """Return the name of the folder that holds what was spooled under a run id."""
    return f"kspark-{run_id}"


def remove_spools(run_id: str) -> None:
    """Delete all files that were spooled under a run id on this host.

    Only finds files of processes that have the same local directories as this one.
    """
    for folder in local_folders():
        shutil.rmtree(os.path.join(folder, folder_name(run_id)), ignore_errors=True)
