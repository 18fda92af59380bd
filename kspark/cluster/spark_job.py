"""One Spark job that can be watched, cancelled, and whose failure reads well."""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster.engine import engine_of
from kspark.cluster.failures import lost_for_good
from kspark.cluster.interrupts import interruptible
from kspark.cluster.results import Collectable
from kspark.errors import (
    ClusterError,
    EnvironmentMismatchError,
    KSparkError,
)

logger = logging.getLogger("kspark")

POLL_SECONDS = 0.2
CANCEL_SECONDS = 10.0

RESULT_LIMIT = "spark.driver.maxResultSize"
"""Spark's setting that ends a job whose results are larger. They would be so again."""

TELLING = re.compile(r"Exception|Error|[Rr]eason|^\[[A-Z_.]+\] ")
"""In lines that say why Spark gave up; Spark Connect's begin with the error's [NAME]."""


class SparkJob:
    """Collects results in a thread of its own, under a job group or tag of its own.

    Args:
        spark: `SparkSession`.
        results: What to collect: an RDD, `Results`.
        description: String, shown in Spark's UI.
        partitions: List of integers, the partitions to collect. Defaults to all.
        bell: Event that is set, too, when the job has finished: for who waits for several.
    """

    def __init__(
        self,
        spark: SparkSession,
        results: Collectable,
        description: str,
        partitions: list[int] | None = None,
        bell: threading.Event | None = None,
    ) -> None:
        self._engine = engine_of(spark)
        self._results = results
        self._description = description
        self._partitions = partitions
        self._group = f"kspark-{uuid.uuid4().hex[:12]}"
        self._result: list[Any] = []
        self._error: BaseException | None = None
        self._thread = self._engine.thread(self._run, self._group)
        self.finished = threading.Event()
        self._bell = bell

    def start(self) -> SparkJob:
        """Submit the job."""
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self._engine.enter(self._group, self._description)
            self._result = self._engine.collect(self._results, self._partitions)
        except BaseException as error:  # noqa: BLE001 (a thread's end: `result` raises it)
            self._error = error
        finally:
            self.finished.set()
            if self._bell is not None:
                self._bell.set()

    def result(self, timeout: float | None = None) -> list[Any]:
        """Wait for the job; an interrupt cancels it.

        Args:
            timeout: Float, seconds after which it is cancelled, too; `None` for never.

        Raises:
            KSparkError: If Spark gave up on the job, or did not end it in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with interruptible():
                while not self.finished.wait(POLL_SECONDS):
                    if deadline is not None and time.monotonic() > deadline:
                        raise JobLostError(f"Spark did not end the job within {timeout:g} s.")
        except BaseException:
            self.cancel()
            raise
        self._thread.join()
        if self._error is not None:
            raise job_error(self._error) from self._error
        return self._result

    def active_tasks(self) -> int:
        """How many tasks of the job run now."""
        return self._engine.active_tasks(self._group)

    def cancel(self) -> None:
        """Cancel the job and wait until it is gone.

        Spark cancels what it knows of: a job that the thread is about to submit is not
        among that yet, so it is told again until the thread has ended.
        """
        deadline = time.monotonic() + CANCEL_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            if not self.finished.is_set():
                self._engine.cancel(self._group)
            self._thread.join(POLL_SECONDS)
        if self._thread.is_alive():
            logger.warning("Spark did not end %s within %g s.", self._group, CANCEL_SECONDS)


def run(
    spark: SparkSession,
    results: Collectable,
    description: str,
    partitions: list[int] | None = None,
    timeout: float | None = None,
) -> list[Any]:
    """Collect results, or those of some partitions, as a `SparkJob`."""
    return SparkJob(spark, results, description, partitions).start().result(timeout)


def run_once(spark: SparkSession, results: Collectable, description: str) -> list[Any]:
    """Collect results in a job that is not submitted again if Spark gives up on it.

    Raises:
        WorkerError: If Spark does.
    """
    try:
        return run(spark, results, description)
    except JobLostError as error:
        raise lost_for_good(error) from error


class JobLostError(KSparkError):
    """Spark gave up on a job for no fault of the model's: it may be submitted again."""


def job_error(error: BaseException) -> KSparkError:
    """What went wrong, from what Spark says of a failed job."""
    text = str(error)
    if "PYTHON_VERSION_MISMATCH" in text or "Python in worker has different version" in text:
        return EnvironmentMismatchError(
            "The workers run another Python version than the driver. Set PYSPARK_PYTHON (or "
            "spark.pyspark.python) to the same Python on all hosts, or ship an environment with "
            f"--archives. Spark says: {first_line(text, 'Python')}"
        )
    if "No module named" in text:
        return EnvironmentMismatchError(
            "A module is missing on the workers. Set PYSPARK_PYTHON (or spark.pyspark.python) to "
            "a Python that has it on all hosts, or ship an environment with --archives. "
            f"Spark says: {first_line(text, 'No module named')}"
        )
    if RESULT_LIMIT in text:
        return ClusterError(
            f"What the workers send back is more than the driver takes. Raise {RESULT_LIMIT} (0 is "
            "no limit), and spark.driver.memory with it; predictions of a DataFrame are not sent "
            f"to the driver. Spark says: {first_line(text, RESULT_LIMIT)}"
        )
    if "message larger than max" in text:
        return ClusterError(
            "The model does not fit into a message of Spark Connect, where there are no "
            "broadcasts: it travels inside each job. Use a classic session for a model of this "
            f"size. Spark says: {first_line(text, 'message larger than max')}"
        )
    return JobLostError(f"Spark gave up on the job: {last_cause(text)}")


def first_line(text: str, word: str) -> str:
    """The first line that holds a word."""
    return next((line.strip() for line in text.splitlines() if word in line), "")


def last_cause(text: str) -> str:
    """The part of Spark's error that says why: the head of the message, not the stack."""
    lines = [ln.strip() for ln in text.splitlines() if ln.strip() and not ln.startswith("\tat ")]
    told = [ln for ln in lines if TELLING.search(ln)]
    return " ".join((told or lines)[:4])[:2000]
