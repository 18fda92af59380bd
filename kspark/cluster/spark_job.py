"""Run one Spark job that can be watched and cancelled, and explain its failure."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from kspark.cluster.engine import engine_of
from kspark.cluster.failures import worker_error
from kspark.cluster.interrupts import interruptible
from kspark.cluster.results import Collectable
from kspark.cluster.spark_errors import PREFIX, cause, first_line, raised_on_worker
from kspark.errors import (
    NO_SHARD,
    ClusterError,
    EnvironmentMismatchError,
    Failure,
    KSparkError,
    WorkerError,
)

logger = logging.getLogger("kspark")

POLL_SECONDS = 0.2
CANCEL_SECONDS = 10.0

RESULT_LIMIT = "spark.driver.maxResultSize"
"""Spark's setting that fails a job with larger results. Submitting it again does not help."""

Watch = Callable[["SparkJob"], None]
"""Function that is called with a job several times per second while the caller waits for it."""


class SparkJob:
    """Collects results in its own thread, under its own job group or tag.

    Args:
        spark: `SparkSession`.
        results: The RDD or `Results` to collect.
        description: String, shown in Spark's UI.
        partitions: List of integers, the partitions to collect. Defaults to all.
        bell: `threading.Event` that is also set when the job has finished. Several jobs can
            share one, so that a caller waits for the first of them.
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
        # The thread runs in the context of the call, which has `kspark.cluster.resources`.
        run = partial(copy_context().run, self._run)
        self._thread = self._engine.thread(run, self._group)
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
        except BaseException as error:  # noqa: BLE001 (the thread ends here; `result` raises it)
            self._error = error
        finally:
            self.finished.set()
            if self._bell is not None:
                self._bell.set()

    def result(self, timeout: float | None = None, watch: Watch | None = None) -> list[Any]:
        """Wait for the job and return its results. An interrupt cancels the job.

        Args:
            timeout: Float, seconds after which to cancel the job. Defaults to `None`, no limit.
            watch: `Watch`. Defaults to `None`.

        Returns:
            List of results in the order of the partitions.

        Raises:
            KSparkError: If the job failed, or did not end within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._wait():
                if deadline is not None and time.monotonic() > deadline:
                    raise JobLostError(f"Spark did not end the job within {timeout:g} s.")
                if watch is not None:
                    watch(self)
        except BaseException:
            self.cancel()
            raise
        self._thread.join()
        if self._error is not None:
            error = job_error(self._error)
            raised = isinstance(error, JobLostError) and error.raised
            raise error from (None if raised else self._error)
        return self._result

    def _wait(self) -> bool:
        """Wait for a moment, and return whether the job has ended."""
        with interruptible():
            return self.finished.wait(POLL_SECONDS)

    def ended_tasks(self) -> tuple[int, int]:
        """Return how many tasks of the stages that have begun have ended, and how many there are.

        Over Spark Connect, both are 0: unknown.
        """
        return self._engine.ended_tasks(self._group)

    def active_tasks(self) -> int:
        """Return the number of the job's running tasks."""
        return self._engine.active_tasks(self._group)

    def has_company(self) -> bool:
        """Return whether the session runs other jobs at the moment."""
        return self._engine.has_other_jobs(self._group)

    def cancel(self) -> None:
        """Cancel the job and wait until its thread has ended.

        Spark only cancels jobs that were submitted. The thread may not have submitted its
        job yet, so this repeats the call until the thread has ended.
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
    watch: Watch | None = None,
) -> list[Any]:
    """Run a `SparkJob` and return its results."""
    return SparkJob(spark, results, description, partitions).start().result(timeout, watch)


def run_once(
    spark: SparkSession, results: Collectable, description: str, watch: Watch | None = None
) -> list[Any]:
    """Run a `SparkJob` that is not submitted again if it fails, and return its results.

    Raises:
        WorkerError: If the job fails.
    """
    try:
        return run(spark, results, description, watch=watch)
    except JobLostError as error:
        raise lost_for_good(error) from error.__cause__


class JobLostError(KSparkError):
    """A job failed for a reason outside the model's code and may be submitted again.

    Args:
        message: String.
        raised: `Failure`, the Python exception that ended the job. Defaults to `None`, unknown.
    """

    def __init__(self, message: str, raised: Failure | None = None) -> None:
        super().__init__(message)
        self.raised = raised


def lost_for_good(error: Exception) -> WorkerError:
    """Return the error for a lost job that is not submitted again. It names no shard."""
    raised = error.raised if isinstance(error, JobLostError) else None
    kind = type(error).__qualname__
    return worker_error(raised or Failure(NO_SHARD, "", 0, kind, str(error), ""))


def job_error(error: BaseException) -> KSparkError:
    """Translate Spark's error for a failed job. Errors of kspark and of arguments stay."""
    if isinstance(error, KSparkError):
        return error
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
            f"The results of the workers exceed the driver's limit. Raise {RESULT_LIMIT} (0 means "
            "no limit), and spark.driver.memory with it, or predict on a DataFrame: its "
            f"predictions stay on the executors. Spark says: {first_line(text, RESULT_LIMIT)}"
        )
    if "message larger than max" in text:
        return ClusterError(
            "What the functions of this job use does not fit into a message of Spark Connect, such "
            "as large objects in `preprocess`, a callback or your own function. Let the workers "
            f"read them from a file. Spark says: {first_line(text, 'message larger than max')}"
        )
    return JobLostError(PREFIX + cause(text), raised_on_worker(text))
