"""The session of a program that has started none."""

from __future__ import annotations

import logging
import os

from pyspark.sql import SparkSession

from kspark.session.local import local_session

logger = logging.getLogger("kspark")

CONFIGURED = ("PYSPARK_GATEWAY_PORT", "SPARK_REMOTE")
"""Environment variables of `spark-submit` and of Spark Connect, which say where Spark runs."""


def default_session() -> SparkSession:
    """Start the session of a program that has started none.

    Under `spark-submit`, and where `SPARK_REMOTE` names a server of Spark Connect, it is the
    session that these describe. Otherwise it is `local_session()`, on all cores of this machine.

    Returns:
        A `SparkSession`.

    Raises:
        ClusterError: If there is no Java that this Spark runs on.
    """
    if any(name in os.environ for name in CONFIGURED):
        session: SparkSession = SparkSession.builder.getOrCreate()
        return session
    logger.info("No Spark session is running, so kspark starts one on this machine.")
    return local_session()
