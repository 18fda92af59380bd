"""What this machine's configuration of Spark says before any session runs."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pyspark

SUBMITTED = ("PYSPARK_GATEWAY_PORT", "SPARK_REMOTE")
"""Environment variables of `spark-submit` and of Spark Connect, which say where Spark runs."""


def configured_text() -> str:
    """Return Spark's command line and its file of defaults as text."""
    home = os.environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)
    folder = os.environ.get("SPARK_CONF_DIR") or os.path.join(home, "conf")
    found = os.environ.get("PYSPARK_SUBMIT_ARGS", "")
    with contextlib.suppress(OSError):
        file = Path(folder, "spark-defaults.conf")
        found += "\n" + file.read_text(encoding="utf-8", errors="replace")
    return found


def names_a_cluster() -> bool:
    """Whether the environment, the command line or the file of defaults says where Spark runs."""
    master = re.compile(r"^\s*spark\.master\b|--master\b|spark\.master=", re.MULTILINE)
    submitted = any(name in os.environ for name in SUBMITTED)
    return submitted or master.search(configured_text()) is not None
