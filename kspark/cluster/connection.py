"""Notice that the server of Spark Connect is gone, so that nobody waits for it again and again.

PySpark repeats a call for about ten minutes before it raises an error. What a fit does at its end,
such as to remove what it persisted, would take as long for each call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from kspark.errors import ClusterError

logger = logging.getLogger("kspark")

UNREACHABLE = "StatusCode.UNAVAILABLE"
FORGOTTEN = (
    "[INVALID_HANDLE.SESSION",
    "[RETRIES_EXCEEDED",
    "[NO_ACTIVE_SESSION",
    "Received incorrect server side session identifier",
)
"""What PySpark's error says if the server does not answer, and how it begins if the server no
longer knows the session."""

GRPC_ERRORS = ("SparkConnectGrpcException", "SparkConnectException")
"""PySpark's classes of errors of calls to the server. They have no public names."""

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
    kind, text = type(error), str(error)
    raw = kind.__module__.partition(".")[0] == "grpc"
    if (raw or kind.__name__ in GRPC_ERRORS) and UNREACHABLE in text:
        return True
    return isinstance(error, PySparkException) and text.startswith(FORGOTTEN)


def note(spark: SparkSession, error: BaseException) -> None:
    """Remember that the server is gone, if an error says so."""
    if is_loss(error):
        _losses[spark] = Loss(time.monotonic(), reason_of(error))


def reason_of(error: BaseException) -> str:
    """Return what an error of Spark says, in one line."""
    return " ".join(str(error).split())[:1000]


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
    except Exception as error:
        if not is_loss(error):
            raise
        note(spark, error)
        raise lost_connection(reason_of(error)) from error


@contextmanager
def explaining_loss() -> Iterator[None]:
    """Explain in one error that a server is gone, for a block that may use any session.

    Raises:
        ConnectionToServerError: If the server is gone.
    """
    try:
        yield
    except Exception as error:
        if is_loss(error):
            raise lost_connection(reason_of(error)) from error
        raise


def tidy(spark: SparkSession, *calls: Callable[[], object]) -> None:
    """Make calls that free something at the server, unless the server is gone.

    An error of Spark is logged and not raised: it would hide why the calls are made.

    Args:
        spark: `SparkSession` of Spark Connect.
        *calls: Functions.
    """
    for call in calls:
        try:
            with reaching(spark):
                call()
        except ConnectionToServerError:
            return
        except PySparkException as error:
            logger.warning("Spark did not free what a call had used. %s", reason_of(error))


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
