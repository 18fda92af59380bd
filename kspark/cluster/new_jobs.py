"""How far the Spark jobs have come that began after some moment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, cast

from pyspark.sql import SparkSession

from kspark.classic import SparkStageInfo, StatusTracker
from kspark.cluster.remote import is_connect

GROUP = "spark.jobGroup.id"
"""Spark's name for the job group of a thread."""


class NewJobs(ABC):
    """The jobs that begin while this object is open."""

    @abstractmethod
    def ended_tasks(self) -> tuple[int, int]:
        """Return the numbers of ended tasks and of all tasks in the stages that have begun."""

    def close(self) -> None:  # noqa: B027 (only Spark Connect keeps something)
        """Take no notice of further jobs."""


class ClassicJobs(NewJobs):
    """Jobs of this thread's job group, or of all threads without one, by the status tracker.

    Args:
        spark: `SparkSession`.
    """

    def __init__(self, spark: SparkSession) -> None:
        context = spark.sparkContext
        self._tracker = context.statusTracker()
        self._group = context.getLocalProperty(GROUP)
        self._before = set(self._tracker.getJobIdsForGroup(self._group))

    def ended_tasks(self) -> tuple[int, int]:
        """See `NewJobs.ended_tasks`. Any thread may call it."""
        jobs = set(self._tracker.getJobIdsForGroup(self._group)) - self._before
        return tasks_of(stages_of(self._tracker, jobs))


class ConnectJobs(NewJobs):
    """Operations of a Spark Connect session, as the server reports them (Spark 4.0 and later).

    Args:
        spark: `SparkSession`.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._handler = cast(Any, self._note)  # Spark takes any function with these arguments.
        self._tasks: dict[str | None, tuple[int, int]] = {}
        if hasattr(spark, "registerProgressHandler"):
            spark.registerProgressHandler(self._handler)

    def _note(
        self,
        stages: Iterable[Any] | None,
        inflight_tasks: int,
        operation_id: str | None,
        done: bool,
    ) -> None:
        known = list(stages or ())
        ended, total = sum(s.num_completed_tasks for s in known), sum(s.num_tasks for s in known)
        if total:
            self._tasks[operation_id] = (ended, total)

    def ended_tasks(self) -> tuple[int, int]:
        """See `NewJobs.ended_tasks`."""
        found = list(self._tasks.values())
        return sum(ended for ended, _ in found), sum(total for _, total in found)

    def close(self) -> None:
        """Remove the handler."""
        if hasattr(self._spark, "removeProgressHandler"):
            self._spark.removeProgressHandler(self._handler)


def new_jobs(spark: SparkSession) -> NewJobs:
    """Watch the jobs of a session that begin from now on. The caller closes the result."""
    return ConnectJobs(spark) if is_connect(spark) else ClassicJobs(spark)


def stages_of(tracker: StatusTracker, jobs: Iterable[int]) -> list[SparkStageInfo]:
    """Return the stages of jobs, as far as Spark still knows them."""
    found = [tracker.getJobInfo(job) for job in jobs]
    numbers = {number for job in found if job for number in job.stageIds}
    return [stage for number in numbers if (stage := tracker.getStageInfo(number))]


def tasks_of(stages: Iterable[SparkStageInfo]) -> tuple[int, int]:
    """Return the numbers of ended tasks and of all tasks in the stages that have begun.

    Stages whose results exist are skipped, and never begin.
    """
    begun = [stage for stage in stages if stage.numActiveTasks or stage.numCompletedTasks]
    return sum(s.numCompletedTasks for s in begun), sum(s.numTasks for s in begun)
