"""Check that the Spark session of the user's data is running."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, SparkSession

from kspark.classic import RDD, SparkContext
from kspark.errors import ClusterError


def check_running(data: Any) -> None:
    """Check that the session of a DataFrame or an RDD has not been stopped.

    Args:
        data: The user's data. Other kinds of data belong to no session.

    Raises:
        ClusterError: If the session was stopped.
    """
    if not isinstance(data, DataFrame | RDD):
        return
    if is_stopped(data.sparkSession if isinstance(data, DataFrame) else data.context):
        raise ClusterError(
            f"The Spark session of this {type(data).__name__} was stopped, so the data cannot be "
            "read any more. Start a session, for instance with "
            "`kspark.session.local_session()`, and create the data again."
        )


def is_stopped(owner: SparkSession | SparkContext) -> bool:
    """Whether a session, of either kind, or a context was stopped."""
    if hasattr(owner, "is_stopped"):  # Only sessions of Spark Connect have it.
        return bool(owner.is_stopped)
    # Classic PySpark, 3.5 to 4.3, has no public way to ask. A context that was stopped has no
    # Java context any more, whose attributes it would return.
    return not hasattr(getattr(owner, "sparkContext", owner), "applicationId")
