"""Notice that the server of Spark Connect is gone, so that nobody waits for it again and again.

PySpark repeats a call for about ten minutes before it raises an error. What a fit does at its end,
such as to remove what it persisted, would take as long for each call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from kspark.errors import ClusterError

UNREACHABLE = "StatusCode.UNAVAILABLE"
FORGOTTEN = ("[INVALID_HANDLE.SESSION", "[RETRIES_EXCEEDED")
"""What PySpark's error says if the server does not answer, and how it begins if the server no
longer knows the session."""

REMEMBERED_SECONDS = 60.0
"""How long no further call is made. Later, the network may have come back."""


@dataclass(frozen=True)
class Loss:
    """When the server was found to be gone, and what Spark said."""

    moment: float
    reason: str


_losses: WeakKeyDictionary[Any, Loss] = WeakKeyDictionary()


class ConnectionToServerError(ClusterError):
    """The server of Spark Connect does not answer, or no longer knows the session."""


def is_loss(error: BaseException) -> bool:
    """Whether an error says that the server is gone, or has forgotten the session.

    Errors of functions on workers have other classes, and may quote anything.
    """
    text = str(error)
    failed = type(error).__name__ == "SparkConnectGrpcException"  # has no public name
    return (failed and UNREACHABLE in text) or text.startswith(FORGOTTEN)


def note(spark: SparkSession, error: BaseException) -> None:
    """Remember that the server is gone, if an error says so."""
    if is_loss(error):
        _losses[spark] = Loss(time.monotonic(), " ".join(str(error).split())[:1000])


def loss_of(spark: SparkSession) -> Loss | None:
    """Return how the server was found to be gone a moment ago, or `None`."""
    loss = _losses.get(spark)
    recent = loss is not None and time.monotonic() - loss.moment < REMEMBERED_SECONDS
    return loss if recent else None


@contextmanager
def reaching(spark: SparkSession) -> Iterator[None]:
    """Explain in one error that the server is gone, if calls in the block find it so.

    The block is not entered if the server was found to be gone a moment ago.

    Raises:
        ConnectionToServerError: If the server is gone.
    """
    if (loss := loss_of(spark)) is not None:
        raise lost_connection(loss.reason)
    try:
        yield
    except PySparkException as error:
        note(spark, error)
        if (loss := loss_of(spark)) is not None:
            raise lost_connection(loss.reason) from error
        raise


def tidy(spark: SparkSession, *calls: Callable[[], object]) -> None:
    """Make calls that free something at the server, unless the server is gone.

    Args:
        spark: `SparkSession` of Spark Connect.
        *calls: Functions.
    """
    with suppress(ConnectionToServerError):
        for call in calls:
            with reaching(spark):
                call()


def lost_connection(reason: str) -> ConnectionToServerError:
    """Return the error for a call that found the server gone.

    Args:
        reason: String, what Spark says.
    """
    return ConnectionToServerError(
        "The connection to the server of Spark Connect was lost, or the server has ended or "
        "forgotten this session. Start a new session with `SparkSession.builder.remote(...)`, and "
        "create the data again. The weights of your model are those after the last epoch that "
        f"ended. Spark says: {reason}"
    )
