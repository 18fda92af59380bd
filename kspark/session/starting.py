"""Let Ctrl-C end a start of Spark at once, with the Java process that was started for it."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from pyspark import SparkConf
from pyspark.sql import SparkSession

from kspark.classic import SparkContext
from kspark.cluster.interrupts import raising
from kspark.session.configured import SUBMITTED

REMOTE_VARIABLES = ("SPARK_REMOTE", "SPARK_API_MODE", "SPARK_CONNECT_MODE_ENABLED")
REMOTE_SETTINGS = ("spark.remote", "spark.api.mode")
"""What makes a session one of Spark Connect, which has no context."""

END_SECONDS = 1.0
"""Seconds that Java may take to end by itself, and to remove its files."""


def start(builder: Any, settings: Mapping[str, str]) -> SparkSession:
    """Start a session, or return the one that runs. An interrupt ends Java.

    Args:
        builder: Builder of the session, with the settings.
        settings: Mapping of the settings that the builder has.

    Raises:
        KeyboardInterrupt: On an interrupt.
    """
    with stoppable_start() as again:
        if not ({*REMOTE_VARIABLES} & {*os.environ} or {*REMOTE_SETTINGS} & {*settings}):
            # Most of the time goes here. At its end, PySpark takes Ctrl-C over.
            SparkContext.getOrCreate(SparkConf().setAll(list(settings.items())))
            again()
        session: SparkSession = builder.getOrCreate()
    return session


@contextlib.contextmanager
def stoppable_start() -> Iterator[Callable[[], None]]:
    """End Java on an interrupt inside the block, which starts a session. A later start is new.

    Nothing changes where Java was there before, as under `spark-submit`, or where a session runs.

    Yields:
        Function that takes Ctrl-C over from PySpark again.

    Raises:
        KeyboardInterrupt: On an interrupt.
    """
    if any(name in os.environ for name in SUBMITTED) or active_context() is not None:
        yield lambda: None
        return
    ended: list[subprocess.Popen[bytes]] = []

    def end_java(frame: FrameType | None) -> None:
        logging.disable(logging.CRITICAL)  # Py4J logs that Java does not answer,
        warnings.simplefilter("ignore")  # and PySpark warns of it.
        process = java_process(frame)
        if process is not None:
            process.terminate()
            ended.append(process)

    level = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), raising(end_java) as again:
            yield again
    except KeyboardInterrupt:
        forget_java()
        for process in ended:
            end(process)
        raise
    finally:
        logging.disable(level)


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process that was told to end has ended; kill it if that takes too long."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# PySpark has no public way to find its Java process, or to start another one. These functions use
# what PySpark 3.5 to 4.3 have in common. `tests/integration/local/test_session.py` covers them.


def active_context() -> SparkContext | None:
    """Return the context that runs in this process, or `None`."""
    return getattr(SparkContext, "_active_spark_context")  # noqa: B009 (no public name)


def java_process(frame: FrameType | None) -> subprocess.Popen[bytes] | None:
    """Return the Java process of PySpark; `None` if there is none.

    Args:
        frame: The frame that was interrupted, perhaps in PySpark's function that starts Java.
    """
    gateway = getattr(SparkContext, "_gateway")  # noqa: B009
    if gateway is not None:
        found: subprocess.Popen[bytes] | None = gateway.proc
        return found
    while frame is not None:
        if frame.f_code.co_name == "launch_gateway":
            return frame.f_locals.get("proc")
        frame = frame.f_back
    return None


def forget_java() -> None:
    """Let PySpark start another Java process, and another context, when it next needs one."""
    context = active_context()
    if context is not None:
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            context.stop()
    for name in ("_gateway", "_jvm"):
        setattr(SparkContext, name, None)
