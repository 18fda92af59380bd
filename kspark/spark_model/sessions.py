"""Find the Spark session of the user's data."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

from kspark.session.default import default_session


def active_session() -> SparkSession | None:
    """Return the active or the default session, or `None`.

    `getActiveSession` is not enough. If an interrupt cancels a call into the JVM, Python opens
    a new connection, whose thread in the JVM has no active session, only the default one.
    """
    try:
        return SparkSession.active()
    except RuntimeError:
        return None


def session_of(x: Any) -> SparkSession:
    """Return the session that data belongs to, or else the active session; or start one."""
    own = getattr(x, "sparkSession", None)
    session = own if own is not None else active_session()
    return default_session() if session is None else session


def first_phase(x: Any) -> str:
    """Return what a call does first, for the screen. Without a session, it starts Spark."""
    has_session = getattr(x, "sparkSession", None) is not None or active_session() is not None
    return "Preparing the rows" if has_session else "Starting Spark"
