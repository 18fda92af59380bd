"""Operations on a Spark session that differ between a classic session and Spark Connect.

A classic session can use the JVM's `SparkContext`: RDDs, broadcasts and job groups.
A Spark Connect session is a client of a remote server and has only DataFrames and tags.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, ClassVar, Protocol

from pyspark import InheritableThread
from pyspark.sql import SparkSession

from kspark import logs
from kspark.classic import SparkStageInfo
from kspark.cluster import connection, daemon, uploading
from kspark.cluster.bootstrap import Enclosed
from kspark.cluster.new_jobs import stages_of, tasks_of
from kspark.cluster.records import joined
from kspark.cluster.remote import is_connect, map_frame
from kspark.cluster.resources import on_profile, refuse_over_connect
from kspark.cluster.results import Collectable, PartitionFunction, Results
from kspark.cluster.settings import spark_settings
from kspark.cluster.slots import addresses_of, task_slots

INTERRUPT_SECONDS = 5.0
"""How long an interrupt waits for a server of Spark Connect."""

MANY_ROWS = 4096
"""Rows of a DataFrame whose partitions should all get some, at Spark's default parallelism."""


class Shared(Protocol):
    """A value that executors can read, for `kspark.cluster.bootstrap.ship`."""

    @property
    def value(self) -> Any:
        """The value, on the executors."""
        ...

    def destroy(self) -> None:
        """Free the memory that it takes on the executors."""
        ...


class Engine(ABC):
    """The operations of a session that jobs use.

    Args:
        spark: `SparkSession`.
    """

    def __init__(self, spark: SparkSession) -> None:
        self.spark = spark

    keeps_shared: ClassVar[bool]
    """Whether executors keep a shared value, so that several jobs transfer it only once."""

    reaches_driver: ClassVar[bool]
    """Whether executors can connect to a server in the process that has the session."""

    @property
    @abstractmethod
    def application(self) -> str:
        """An identifier of the application or session that the executors serve."""

    @property
    @abstractmethod
    def groups(self) -> bool:
        """Whether executors can group the results of tasks before they are collected."""

    @abstractmethod
    def use_warm_workers(self, backend: str) -> None:
        """Let the functions that are created from now on run in workers with Keras imported.

        Has no effect if the daemon of the workers is not that of `kspark.cluster.daemon`.

        Args:
            backend: String, the Keras backend.
        """

    @abstractmethod
    def share(self, value: Any) -> Shared:
        """Share a large value, or one that several jobs use, with the executors."""

    @abstractmethod
    def on_every_slot(self, task: PartitionFunction, per_slot: int = 1) -> Results:
        """Run a task in about as many partitions as the cluster has task slots.

        Args:
            task: Function of (partition, rows). The rows carry no information.
            per_slot: Integer, partitions per task slot; a hint that an engine may ignore.
        """

    @abstractmethod
    def collect(self, results: Collectable, partitions: list[int] | None) -> list[Any]:
        """Collect the results of all partitions, or of the given ones and perhaps of others."""

    @abstractmethod
    def thread(self, target: Callable[[], None], name: str) -> Thread:
        """Create a thread for one job. `target` must call `enter` first."""

    @abstractmethod
    def enter(self, group: str, description: str) -> None:
        """Put the jobs that this thread submits into a group that `cancel` can cancel."""

    @abstractmethod
    def cancel(self, group: str) -> None:
        """Cancel the jobs of a group."""

    @abstractmethod
    def active_tasks(self, group: str) -> int:
        """Return the number of running tasks of a group's jobs."""

    @abstractmethod
    def ended_tasks(self, group: str) -> tuple[int, int]:
        """Return the numbers of ended tasks and of all tasks in a group's begun stages.

        Both are 0 if an engine does not know them.
        """

    @property
    @abstractmethod
    def shows_progress(self) -> bool:
        """Whether Spark itself shows a progress bar in the terminal of the driver."""

    @abstractmethod
    def addresses(self) -> frozenset[str]:
        """Return the addresses of the driver and of all executors, or none if nobody knows them."""

    @abstractmethod
    def has_other_jobs(self, group: str) -> bool:
        """Return whether jobs outside of a group are running or waiting."""


class ClassicEngine(Engine):
    """The operations of a classic session, which can use the JVM's `SparkContext`."""

    keeps_shared = True
    reaches_driver = True

    @property
    def application(self) -> str:
        """The application's id."""
        return str(self.spark.sparkContext.applicationId)

    @property
    def groups(self) -> bool:
        """`True`: an RDD's partitioner can group results."""
        return True

    def use_warm_workers(self, backend: str) -> None:
        """Add to the environment in which Spark starts the workers of new functions."""
        context = self.spark.sparkContext
        if spark_settings(self.spark).get("spark.python.daemon.module", "") in daemon.NAMES:
            context.environment[daemon.BACKEND] = backend
            if logs.are_shown():
                context.environment[logs.VARIABLE] = os.environ[logs.VARIABLE]

    def share(self, value: Any) -> Shared:
        """Broadcast a value."""
        return self.spark.sparkContext.broadcast(value)

    def on_every_slot(self, task: PartitionFunction, per_slot: int = 1) -> Results:
        """Run a task in exactly `per_slot` partitions per task slot."""
        count = per_slot * task_slots(self.spark)
        rows = self.spark.sparkContext.parallelize(range(count), count)
        return rows.mapPartitionsWithIndex(task)

    def collect(self, results: Any, partitions: list[int] | None) -> list[Any]:
        """Collect the results of the given partitions, or of all."""
        if partitions is None:
            return joined(on_profile(results).collect())
        # These results begin with others that were collected, and so have the call's profile.
        return joined(self.spark.sparkContext.runJob(results, list, partitions))

    def thread(self, target: Callable[[], None], name: str) -> Thread:
        """Create a thread with a thread of its own in the JVM."""
        return InheritableThread(target=target, name=name, daemon=True)

    def enter(self, group: str, description: str) -> None:
        """Set the job group of this thread."""
        self.spark.sparkContext.setJobGroup(group, description, True)

    def cancel(self, group: str) -> None:
        """Cancel a job group."""
        self.spark.sparkContext.cancelJobGroup(group)

    def active_tasks(self, group: str) -> int:
        """Count the running tasks of a job group with Spark's status tracker."""
        return sum(stage.numActiveTasks for stage in self._stages(group))

    def ended_tasks(self, group: str) -> tuple[int, int]:
        """Count the tasks of a job group with Spark's status tracker."""
        return tasks_of(self._stages(group))

    def _stages(self, group: str) -> list[SparkStageInfo]:
        tracker = self.spark.sparkContext.statusTracker()
        return stages_of(tracker, tracker.getJobIdsForGroup(group))

    @property
    def shows_progress(self) -> bool:
        """Whether the bar of `spark.ui.showConsoleProgress` is on."""
        setting = spark_settings(self.spark).get("spark.ui.showConsoleProgress", "false")
        return str(setting).lower() == "true" and sys.stderr.isatty()

    def addresses(self) -> frozenset[str]:
        """Ask the JVM's `SparkContext`. A local master has no executors but the driver."""
        return addresses_of(self.spark)

    def has_other_jobs(self, group: str) -> bool:
        """Compare the active jobs with those of the group, with Spark's status tracker."""
        tracker = self.spark.sparkContext.statusTracker()
        return not set(tracker.getActiveJobsIds()) <= set(tracker.getJobIdsForGroup(group))


class ConnectEngine(Engine):
    """The operations of a Spark Connect session.

    Args:
        spark: `SparkSession`.

    Raises:
        ValueError: If the call has a profile of resources.
    """

    keeps_shared = False
    reaches_driver = False

    def __init__(self, spark: SparkSession) -> None:
        refuse_over_connect()  # Before any job, and in the thread of the call.
        super().__init__(spark)

    @property
    def application(self) -> str:
        """The session's id: each session has its own files on the executors."""
        return str(getattr(self.spark, "session_id"))  # noqa: B009 (a classic session has none)

    @property
    def groups(self) -> bool:
        """`False`: results are pieces of pickles, and no column holds a key to group by."""
        return False

    def use_warm_workers(self, backend: str) -> None:
        """Do nothing: the server's settings decide about the environment of all functions."""

    def share(self, value: Any) -> Shared:
        """Pickle a value into the function of each job that uses it, or a large one into a file."""
        enclosed = Enclosed(value)
        large = len(enclosed.pickled) > uploading.LARGEST_ENCLOSED
        if not large:
            return enclosed
        with connection.reaching(self.spark):
            return uploading.upload(self.spark, enclosed)

    def on_every_slot(self, task: PartitionFunction, per_slot: int = 1) -> Results:
        """Run a task in Spark's default number of partitions, usually one per task slot."""
        with connection.reaching(self.spark):
            return map_frame(self.spark.range(MANY_ROWS), task)

    def collect(self, results: Collectable, partitions: list[int] | None) -> list[Any]:
        """Collect all results: Spark Connect cannot collect single partitions of a DataFrame."""
        with connection.reaching(self.spark):
            return joined(results.collect())

    def thread(self, target: Callable[[], None], name: str) -> Thread:
        """Create a thread that inherits the session's tags."""
        return InheritableThread(target=target, name=name, daemon=True, session=self.spark)

    def enter(self, group: str, description: str) -> None:
        """Add the group as a tag to the operations of this thread."""
        self.spark.addTag(group)

    def cancel(self, group: str) -> None:
        """Interrupt all operations with the group's tag, without a long wait for the server."""
        interrupt = partial(connection.tidy, self.spark, partial(self.spark.interruptTag, group))
        thread = Thread(target=interrupt, name=f"{group}-interrupt", daemon=True)
        thread.start()
        thread.join(INTERRUPT_SECONDS)

    def active_tasks(self, group: str) -> int:
        """Return 0. Only live training uses this number, and it does not run on Spark Connect."""
        return 0

    def ended_tasks(self, group: str) -> tuple[int, int]:
        """Return zeros: Spark Connect has no status tracker."""
        return 0, 0

    @property
    def shows_progress(self) -> bool:
        """`False`: a Spark Connect session has no console bar of Spark's driver."""
        return False

    def addresses(self) -> frozenset[str]:
        """Return no address: a client of Spark Connect does not see the executors."""
        return frozenset()

    def has_other_jobs(self, group: str) -> bool:
        """Return `False`. Only live training asks, and it does not run on Spark Connect."""
        return False


def engine_of(spark: SparkSession) -> Engine:
    """Return the engine for a session."""
    return ConnectEngine(spark) if is_connect(spark) else ClassicEngine(spark)
