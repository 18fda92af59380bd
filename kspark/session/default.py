"""The session of a call: that of its data, the active one, or one that is started now."""

from __future__ import annotations

import logging
from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster.accelerators import keep_from_driver
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
        keep_from_driver(session)
        return session
    logger.info("No Spark session is running, so kspark starts one on this machine.")
    return local_session()


def session_of(x: Any) -> SparkSession:
    """Return the session that data belongs to, or else the active session; or start one."""
    own = getattr(x, "sparkSession", None)
    session = own if own is not None else active_session()
    return default_session() if session is None else session


def active_session() -> SparkSession | None:
    """Return the active or the default session, or `None`.

    `getActiveSession` is not enough. If an interrupt cancels a call into the JVM, Python opens
    a new connection, whose thread in the JVM has no active session, only the default one.
    """
    try:
        return SparkSession.active()
    except RuntimeError:
        return None


def first_phase(x: Any) -> str:
    """Return what a call does first, for the screen. Without a session, it starts Spark."""
    has_session = getattr(x, "sparkSession", None) is not None or active_session() is not None
    return "Preparing the rows" if has_session else "Starting Spark"
