"""The session of a program that has started none."""

from __future__ import annotations

import logging

from pyspark.sql import SparkSession

from kspark.session.configured import names_a_cluster
from kspark.session.local import local_session
from kspark.session.starting import stoppable_start

logger = logging.getLogger("kspark")


def default_session() -> SparkSession:
    """Start the session of a program that has started none.

    Under `spark-submit`, and where `SPARK_REMOTE` or Spark's file of defaults says where Spark
    runs, it is the session that these describe. Otherwise it is `local_session()`, on all cores of
    this machine.

    Returns:
        A `SparkSession`.

    Raises:
        ClusterError: If there is no Java that this Spark runs on.
    """
    if names_a_cluster():
        with stoppable_start():
            session: SparkSession = SparkSession.builder.getOrCreate()
        return session
    logger.info("No Spark session is running, so kspark starts one on this machine.")
    return local_session()
