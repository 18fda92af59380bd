"""Bring values to the executors that are too large for a message of Spark Connect."""

from __future__ import annotations

import uuid

from pyspark.sql import SparkSession

from kspark import temporary
from kspark.cluster.bootstrap import Enclosed, Uploaded

LARGEST_ENCLOSED = 32 << 20
"""Bytes of a value that is enclosed in the message of a job. There may be three of them in one,
and a message holds at most 128 MiB."""


def upload(spark: SparkSession, enclosed: Enclosed) -> Uploaded:
    """Send a value as a file. Spark brings it to the executors that run tasks of this session.

    The server and these executors keep the file until the session is stopped.

    Args:
        spark: `SparkSession` of Spark Connect.
        enclosed: `Enclosed` with the value.
    """
    name = f"kspark-{uuid.uuid4().hex}"
    folder = temporary.Folder(temporary.SHARED)
    try:
        path = folder.path / name
        path.write_bytes(enclosed.pickled)
        spark.addArtifacts(str(path), file=True)
    finally:
        folder.remove()
    return Uploaded(name)
